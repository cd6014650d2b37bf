"""Mixed precision: what each width does to each layer, and the smallest mixture that keeps the score."""
