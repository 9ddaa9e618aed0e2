"""What strategies share that draw points or ask a sampler of optuna."""
