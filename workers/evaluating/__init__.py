"""What a candidate is worth: evaluators of each fidelity, and accuracy with its intervals."""
