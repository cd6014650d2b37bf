"""ONNX Runtime, on the CPU unless told otherwise: an ONNX file, or an encoder-decoder's folder that generates."""

import sys
from pathlib import Path
from typing import Any

import onnxruntime

from stages.benchmark.runners.loaded import Arrays, Loaded, Spec, Step

PROVIDER = "CPUExecutionProvider"
SEQUENCES = "sequences"


def load(spec: Spec) -> Loaded:
    """The file, or the folder, that `model` of the spec names.

    `providers` of the spec, each with its options, say where else nodes run, in the order of choice.
    Where `generate` of the spec says how, an inference is a generation of so many tokens; see `generation`.
    """
    path = Path(spec["model"])
    whole = path.is_dir()
    sessions = [_session(file, spec) for file in (_graphs(path) if whole else [path])]
    provider = sessions[0].get_providers()[0]
    description = {"version": onnxruntime.__version__, "execution_provider": provider, "threads": spec["threads"]}
    if spec.get("generate"):
        generator = _cached if whole else _uncached
        return Loaded(
            lambda inputs: generator(sessions, inputs, spec["generate"]), _sequences, description, concurrent=True
        )
    (session,) = sessions
    names = [node.name for node in session.get_outputs()]

    def prepare(inputs: Arrays) -> Step:
        feed = _taken(session, inputs)
        return lambda: session.run(names, feed)

    return Loaded(prepare, lambda raw: dict(zip(names, raw, strict=True)), description, concurrent=True)


def _graphs(folder: Path) -> list[Path]:
    from pipeline.forms.generate import GRAPHS

    return [folder / f"{name}.onnx" for name in GRAPHS]


def _session(file: Path, spec: Spec) -> Any:
    providers = [(name, settings) for name, settings in spec.get("providers", [[PROVIDER, {}]])]
    if len(providers) > 1 and hasattr(onnxruntime, "preload_dlls"):  # of CUDA, from the packages that pip installs
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = spec["threads"], 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=providers)
    names = [name for name, _ in providers]
    if session.get_providers() != names:
        sys.exit(f"ONNX Runtime fell back to {session.get_providers()}, expected {', '.join(names)}")
    return session


def _taken(session: Any, inputs: Arrays) -> Arrays:
    return {node.name: inputs[node.name] for node in session.get_inputs()}


def _cached(sessions: list[Any], inputs: Arrays, how: dict[str, Any]) -> Step:
    from stages.benchmark.runners.generation import cached_step

    return cached_step(sessions, inputs, how)


def _uncached(sessions: list[Any], inputs: Arrays, how: dict[str, Any]) -> Step:
    from stages.benchmark.runners.generation import uncached_step

    (session,) = sessions
    return uncached_step(session, _taken(session, inputs), how)


def _sequences(ids: Any) -> Arrays:
    return {SEQUENCES: ids}
