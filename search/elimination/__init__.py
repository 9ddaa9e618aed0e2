"""Exact questions to a latency that is a sum of small tables, answered by variable elimination (Dechter 1999)."""
