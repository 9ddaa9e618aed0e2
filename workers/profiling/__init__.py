"""What the profile phase is made of: timing the original, taking it apart, filling tables, calibrating."""
