"""Pools: the places on one machine where evaluations run."""
