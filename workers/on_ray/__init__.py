"""Runs evaluations and training runs on a Ray cluster."""
