"""Metrics at image and patient level, their intervals, and comparisons."""
