"""The doubt beside a number: intervals and tests for two models scored on the same examples."""
