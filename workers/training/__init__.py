"""How finalists and the control are chosen and trained, one after another or side by side."""
