"""Quantisation: the choice of nodes, their ranges and their scales."""
