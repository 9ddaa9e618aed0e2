"""Ranking of evaluations: by preference, by nearness to the limits, and by dominance."""
