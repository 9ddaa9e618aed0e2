"""The graph at work: torch modules, channel flow and groups, cuts, folds and lossless rewrites."""
