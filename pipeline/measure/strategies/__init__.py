"""Which of several strategies is to be preferred: the Pareto front, and what can be told apart."""
