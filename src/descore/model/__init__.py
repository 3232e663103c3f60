"""The backbone, the query, the head, and thinking."""
