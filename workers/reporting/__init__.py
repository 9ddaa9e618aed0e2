"""What a job hands over besides the file: the report, its plots, and the clean re-check."""
