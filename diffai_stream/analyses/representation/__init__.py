"""What changed in the tables that give tokens their meaning."""
