"""Steps of the profile phase: timing the original, taking it apart, filling tables, calibrating."""
