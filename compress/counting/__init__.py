"""Costs of a network: parameters, multiply-accumulates, bytes, and the ops that devices time."""
