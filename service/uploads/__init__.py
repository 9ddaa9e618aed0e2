"""Uploaded files, opened and checked in a child process with limits."""
