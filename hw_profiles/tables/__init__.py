"""The known costs of a device: latency tables, predictors, calibration and anchors."""
