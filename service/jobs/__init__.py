"""What a job asks for, whether it can be taken, and how it is shown."""
