"""Records and the writers that print them: one record in, bytes out, nothing kept that the output does not need."""
