"""What can be done to a network: groups, methods, rewriting, training, data, built-in networks."""
