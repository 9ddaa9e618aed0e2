"""Checks that run in the sandbox. Each file is a task with `run(request) -> report`, both plain JSON."""
