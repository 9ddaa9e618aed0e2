"""The server's side of devices: hand out leases, judge results, predict latencies."""
