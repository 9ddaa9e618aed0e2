"""What a network costs in parameters, multiply-accumulates and bytes."""
