"""What a change of one layer does to a network's answers, on values that are computed once for all layers."""
