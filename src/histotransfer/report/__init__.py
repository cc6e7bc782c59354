"""Tables, verdicts and answers that pages show, made from records. Nothing here trains or predicts."""
