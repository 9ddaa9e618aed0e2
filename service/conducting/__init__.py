"""The conductor: a process that leases jobs, runs them and stores their reports."""
