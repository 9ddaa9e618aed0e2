"""Code for strategies that draw points at random or use a sampler of optuna."""
