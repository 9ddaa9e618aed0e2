"""Runs evaluations and trainings on a Ray cluster."""
