"""Many chains, one table: strategies run beside each other, are timed in turns, and are told apart or not."""
