"""Tables of models and data sets, and what was found out about them."""
