"""The conductor: it leases jobs, runs them and stores what they report."""
