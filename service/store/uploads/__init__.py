"""Tables of models and data sets, and of the results of their checks."""
