"""Tables of jobs, their leases and their results."""
