"""From files to token ids: tables of pairs, their checks, and the token layout."""
