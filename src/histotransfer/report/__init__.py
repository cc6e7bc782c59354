"""What a page says of records: tables, verdicts, answers. Nothing here trains or predicts."""
