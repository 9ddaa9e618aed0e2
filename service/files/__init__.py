"""What lies in the data folder: blobs, secrets, and their housekeeping."""
