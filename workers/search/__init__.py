"""The search loop: strategies race, and the tables and the best so far are watched."""
