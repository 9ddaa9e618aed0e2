"""Judges finalists: times them whole, compares them with the control, and tries smaller neighbours."""
