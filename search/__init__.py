"""What to try next: spaces, problems, metrics, strategies, Pareto. Knows no network and no service."""
