"""Code for strategies that search for one sparsity of the whole network."""
