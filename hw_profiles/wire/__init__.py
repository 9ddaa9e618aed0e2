"""What agents and server tell each other, as types that both use."""
