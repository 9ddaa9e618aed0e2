"""Scoring: what the scores of samples say of a network and of two of them, with intervals."""
