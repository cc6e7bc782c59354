"""What is asked beside the study: one module per experiment, each with one `run()` that writes a record."""
