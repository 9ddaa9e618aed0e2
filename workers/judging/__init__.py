"""Judges finalists: times each whole network, compares it with the control, and tries smaller neighbours."""
