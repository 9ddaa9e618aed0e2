"""Uploaded files: they are opened and checked in a child process with limits."""
