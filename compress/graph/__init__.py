"""Work on a network's graph: torch modules, channel flow and groups, cuts, folds and lossless rewrites."""
