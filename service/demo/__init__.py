"""The demo: train, compress and re-check a small network on this machine."""
