"""How finalists and the control are trained side by side."""
