"""Metrics at image and patient level, baselines, intervals."""
