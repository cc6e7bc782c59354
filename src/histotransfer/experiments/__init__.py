"""Experiments beside the study: one module each, with one `run()` that writes a record."""
