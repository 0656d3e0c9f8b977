"""Gates and verdicts: what the other analyses found, held against limits and rules that are written down."""
