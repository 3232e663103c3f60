"""Tables of pairs and rated clips, and their checks."""
