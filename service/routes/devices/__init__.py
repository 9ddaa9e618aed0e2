"""Routes of devices and their agents."""
