"""Everything that a job delivers besides the file: the report, its plots, and the check in a clean process."""
