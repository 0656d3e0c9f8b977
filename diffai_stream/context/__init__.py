"""What lies beside a checkpoint and explains it: configuration, tokenizer, training history; read inertly."""
