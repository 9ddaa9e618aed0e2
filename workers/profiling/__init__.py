"""The steps of the profile phase: time the original, take it apart, fill tables, calibrate."""
