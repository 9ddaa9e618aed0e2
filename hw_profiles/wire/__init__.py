"""The messages between agents and server, as types that both use."""
