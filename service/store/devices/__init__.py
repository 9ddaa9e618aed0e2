"""Tables of devices, agents, and the work that is asked of them."""
