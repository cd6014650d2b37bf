"""Budget -> verdict: pass, fail or inconclusive, never a guess."""
