"""Training: distillation, learning-compression, batch norms and checkpoints."""
