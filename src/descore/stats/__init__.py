"""Statistics of agreement: bootstrap intervals, accuracy, correlation, calibration."""
