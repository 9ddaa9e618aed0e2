"""Where evaluations run on one machine."""
