"""What a network costs: parameters, multiply-accumulates, bytes, and the ops that devices time."""
