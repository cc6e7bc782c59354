"""What was run and what came out: records, and the tables drawn from them."""
