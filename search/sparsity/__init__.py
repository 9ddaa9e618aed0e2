"""What strategies share that infer one sparsity for the whole network."""
