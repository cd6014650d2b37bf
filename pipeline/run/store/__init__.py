"""Results by key: nothing is computed twice, and what is there is whole."""
