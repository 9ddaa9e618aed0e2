"""How finalists are timed whole, judged against the control, and followed by a smaller neighbour."""
