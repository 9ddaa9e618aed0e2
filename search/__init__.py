"""Search for candidates: spaces, problems, metrics, strategies, Pareto fronts. Independent of networks and service."""
