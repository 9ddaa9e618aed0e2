"""The profiling agent: it signs on to a server, leases work, times it and sends results."""
