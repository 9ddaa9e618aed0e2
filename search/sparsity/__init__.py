"""Code shared by strategies that infer one sparsity for the whole network."""
