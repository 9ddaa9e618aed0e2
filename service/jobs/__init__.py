"""Jobs: their requests, the checks before they are queued, and their public form."""
