"""The evaluation of candidates: the evaluators for each fidelity, and the scores."""
