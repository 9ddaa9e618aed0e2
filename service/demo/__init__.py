"""The demo: a small network trained, compressed and re-checked on this machine."""
