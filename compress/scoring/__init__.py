"""Scoring: mean scores of networks and differences of two networks, with intervals."""
