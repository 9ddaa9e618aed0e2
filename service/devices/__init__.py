"""Devices as the server sees them: leases handed out, results judged, predictions."""
