"""What the parameters of a model hold: zeros, their patterns, and bits."""
