"""Data sets: reading, checking, decoding, splitting and preprocessing them."""
