"""A run's surroundings: its plan and ports, its records, and its requests to devices."""
