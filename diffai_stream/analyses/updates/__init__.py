"""What a change is made of: its directions, and how it goes together with another change of the same base."""
