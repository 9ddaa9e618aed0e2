"""How a device is timed: the protocol, bursts, timing models, and the process that runs them."""
