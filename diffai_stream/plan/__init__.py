"""Two indexes to a plan: which tensor lies beside which, and in what order they are read."""
