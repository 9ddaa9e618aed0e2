"""Routes of devices and of their agents."""
