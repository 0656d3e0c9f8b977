"""What kind of model it is and what it costs to hold and to run: from names, shapes, encodings and the configuration."""
