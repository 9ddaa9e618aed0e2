"""Which of several evaluations is better, nearer to the limits, or beaten by none."""
