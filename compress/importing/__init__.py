"""Import of a user's file: it is normalised, verified, repaired if possible, or refused."""
