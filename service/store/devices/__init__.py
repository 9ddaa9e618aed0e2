"""Tables of devices, agents and their work."""
