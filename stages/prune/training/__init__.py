"""Training beside pruning: before a cut, and after it."""
