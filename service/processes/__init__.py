"""The processes of a server, and how each ends with its parent."""
