"""Code shared by strategies that draw points at random or ask one of optuna's samplers."""
