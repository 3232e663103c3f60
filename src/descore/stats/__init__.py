"""Statistics of agreement with people: accuracy, correlation and calibration, with bootstrap intervals."""
