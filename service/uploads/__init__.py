"""Uploaded files, which are opened and checked in a child process with resource limits."""
