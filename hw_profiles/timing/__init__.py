"""Timing of models on a device: the protocol, bursts, timing models, and the process that runs them."""
