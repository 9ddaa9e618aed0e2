"""Evaluates candidates: evaluators of each fidelity, and scores."""
