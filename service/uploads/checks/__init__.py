"""Checks: what runs in the sandbox. One task a file, each offering `run(request) -> report`, both plain JSON."""
