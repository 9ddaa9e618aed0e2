"""What a user's file goes through before it is believed: normalised, verified, mended or refused."""
