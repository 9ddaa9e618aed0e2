"""What a device costs, as known: latency tables, predictors, calibration, anchors."""
