"""What a candidate is worth: evaluators of each fidelity, and the scores of images."""
