"""Numbers of few bits: which nodes, which ranges, which scales."""
