"""Serving of predictions: reads the latest readings, scores them and records the results."""
