"""Choice of the channels to remove, and the refit of the layers that read them."""
