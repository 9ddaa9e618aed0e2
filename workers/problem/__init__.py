"""The problem that a search works on, built from a network, its methods and latency tables."""
