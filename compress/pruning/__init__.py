"""Which channels go, and how what reads them is refitted."""
