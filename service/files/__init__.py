"""Contents of the data folder: blobs, secrets and their housekeeping."""
