"""The parts of `search_race.py` and `proxy.py`: starts, arenas, the peer, final training and timing."""
