"""Where evaluations and trainings run on a Ray cluster."""
