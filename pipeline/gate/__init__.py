"""Budget -> verdict: pass, fail or inconclusive, never a guess."""

from pipeline.gate.judge import has_limits, judge, judged, unfinished, verdict, warnings_of

__all__ = ["has_limits", "judge", "judged", "unfinished", "verdict", "warnings_of"]
