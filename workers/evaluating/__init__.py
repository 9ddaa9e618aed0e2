"""Evaluates candidates: evaluators of each fidelity, and accuracy with its intervals."""
