"""How busy the machine is."""

import os
from collections.abc import Callable


def warn_of_load(warn: Callable[[str], None]) -> None:
    """Warn where more wants to run than there are cores: ratios stay fair, for all are slowed, and the doubt grows."""
    load, count = _load(), os.cpu_count() or 1
    if load > count:
        warn(
            f"the load of this machine was {load:.1f} on {count} cores before latency was measured, over the last "
            "minute: ratios stay fair and their intervals get wider. Measure again when it is quiet, or raise `rounds`"
        )


def _load() -> float:
    """How many wanted to run at a time, over the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows, or a system that does not tell
        return 0.0
