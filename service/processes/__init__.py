"""The processes of a server; each ends with its parent."""
