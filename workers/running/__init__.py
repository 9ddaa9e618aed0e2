"""A run's surroundings: its plan and ports, what it recorded, and what it asks of devices."""
