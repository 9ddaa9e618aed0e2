"""Chooses and trains the finalists and the control, one after another or in parallel."""
