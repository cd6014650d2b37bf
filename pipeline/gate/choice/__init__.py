"""Which pair of a strategy and a runtime to take, under the limits of a budget."""
