"""Evaluates candidates: the evaluators of each fidelity, and the scores."""
