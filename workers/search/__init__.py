"""The search loop: strategies race, while the tables and the best candidate so far are watched."""
