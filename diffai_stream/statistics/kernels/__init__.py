"""The compiled loops. Plain code only: what is vectorized, and why it is written so, is said where it matters."""
