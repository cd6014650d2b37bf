"""Sessions that show what they do: the graph as ONNX Runtime runs it, the profile, one thread.

Nothing here imports torch, for a file from outside is opened in a process of its own; see `child`.
"""

import json
from pathlib import Path
from typing import Any

EXTENDED, ALL = "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"
"""How far ONNX Runtime rewrites a graph: with fused operators; and with the layouts that this CPU likes, too."""


def write_optimized(source: Path, target: Path, level: str = EXTENDED) -> None:
    """Write the graph with constants folded and operators fused, its weights in a file beside it."""
    _open(source, _showing(target, level))


def open_plain(source: Path) -> Any:
    """A session on one thread, with the graph rewritten as far as it goes."""
    return _open(source, _options(ALL))


def open_profiled(source: Path, target: Path) -> Any:
    """The same, which writes its graph to `target` and its profile beside it; see `node_events`."""
    options = _showing(target, ALL)
    options.enable_profiling = True
    options.profile_file_prefix = str(target.with_suffix(""))
    return _open(source, options)


def node_events(session: Any) -> list[dict[str, Any]]:
    """What a profiled session did, a row a node and run: `name`, `dur` in microseconds, `args`; it profiles no more."""
    file = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(file.read_text(errors="replace"))
    file.unlink()
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]


def _options(level: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    return options


def _showing(target: Path, level: str) -> Any:
    options = _options(level)
    options.optimized_model_filepath = str(target)
    entry = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(entry, f"{target.name}.data")
    return options


def _open(source: Path, options: Any) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
