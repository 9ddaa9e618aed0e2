"""Tables of jobs and of what happens to them."""
