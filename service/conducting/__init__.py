"""The conductor: it leases jobs, runs them, and writes what they report."""
