"""A command as a process of its own, and what it cost: `python measured.py RESULT.json COMMAND...`.

RESULT.json gets the wall time in `seconds`, `peak_bytes` of the largest process among it and those that it waited for,
and its exit `code`, or the signal that ended it, below zero. A small process starts it, for a peak is no less than that
of the process that starts another.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

start = time.perf_counter()
code = os.spawnvp(os.P_WAIT, sys.argv[2], sys.argv[2:])
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
Path(sys.argv[1]).write_text(json.dumps({"seconds": seconds, "peak_bytes": peak, "code": code}))
