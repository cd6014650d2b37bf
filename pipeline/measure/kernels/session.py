"""Sessions on one thread, with the graph rewritten as far as it goes: plain ones, and those that show what they do.

Nothing here imports torch, for a file from outside is opened in a process of its own; see `child`.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.forms.deployed.optimized import ALL, writing


def open_plain(source: Path) -> Any:
    """A session to be timed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return _open(source, options)


def open_profiled(source: Path, target: Path) -> Any:
    """A session that writes its graph to `target` and its profile beside it; see `node_events`."""
    options = writing(target, ALL)
    options.enable_profiling = True
    options.profile_file_prefix = str(target.with_suffix(""))
    return _open(source, options)


def node_events(session: Any) -> list[dict[str, Any]]:
    """What a profiled session did, a row a node and run: `name`, `dur` in microseconds, `args`; it profiles no more."""
    file = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(file.read_text(errors="replace"))
    file.unlink()
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]


def _open(source: Path, options: Any) -> Any:
    import onnxruntime

    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
