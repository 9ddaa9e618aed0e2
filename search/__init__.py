"""Search for candidates: spaces, problems, metrics, strategies, Pareto fronts. It imports no other folder."""
