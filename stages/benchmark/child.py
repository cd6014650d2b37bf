"""The fresh process that times one model: `python -m stages.benchmark.child spec.json`.

It reads a spec, writes the samples to the file that the spec names, and imports no more than its runtime needs:
torch alone would cost an ONNX measurement two seconds.
"""

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

FEWEST = 5
"""Samples at least, however long one takes."""

Step = Callable[[], object]


def main(spec_path: Path) -> None:
    """Time what the spec describes.

    Args:
        spec_path: a JSON object: `runtime` onnxruntime or torch; `model`, an ONNX file or a saved TorchModel's folder;
            `folder`, where the user's files of a TorchModel are; `inputs`, an .npz of one batch; `threads`; `warmup`
            calls; `iterations` or `seconds`; `result`, the file to write. Where `generate` has how, an inference is a
            generation of so many tokens, and the model may be an encoder-decoder's folder.
    """
    spec = json.loads(spec_path.read_text())
    step, provider = {"onnxruntime": onnx_step, "torch": torch_step}[spec["runtime"]](spec)
    samples = sample(step, spec["warmup"], spec["seconds"], spec["iterations"])
    Path(spec["result"]).write_text(json.dumps({"samples_ns": samples, "execution_provider": provider}))


def sample(step: Step, warmup: int, seconds: float, iterations: int | None) -> list[int]:
    """Nanoseconds of each call of `step`.

    Args:
        step: one inference.
        warmup: calls before, made and timed in the same way and then dropped.
        seconds: how long to go on, but at least `FEWEST` calls; used where `iterations` is None.
        iterations: number of calls.
    """
    for _ in range(warmup):
        _timed(step)
    gc.disable()  # as timeit does: a collection would hit one sample at random
    samples: list[int] = []
    end = perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < (iterations or FEWEST) or (not iterations and perf_counter_ns() < end):
        samples.append(_timed(step))
    gc.enable()
    return samples


def _timed(step: Step) -> int:
    start = perf_counter_ns()
    step()
    return perf_counter_ns() - start


def onnx_step(spec: dict[str, Any]) -> tuple[Step, str]:
    """One inference in ONNX Runtime on the CPU, and the execution provider that does it."""
    import numpy as np
    import onnxruntime

    from pipeline.forms.generate import GRAPHS
    from stages.benchmark import generation

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = spec["threads"], 1
    options.log_severity_level = 3
    where, whole = {"providers": ["CPUExecutionProvider"]}, Path(spec["model"]).is_dir()
    files = [f"{spec['model']}/{name}.onnx" for name in GRAPHS] if whole else [spec["model"]]
    sessions = [onnxruntime.InferenceSession(file, options, **where) for file in files]
    for session in sessions:
        if session.get_providers() != ["CPUExecutionProvider"]:
            sys.exit(f"ONNX Runtime fell back to {session.get_providers()}, expected CPUExecutionProvider")
    with np.load(spec["inputs"], allow_pickle=False) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    if whole:
        return generation.cached_step(sessions, inputs, spec["generate"]), "CPUExecutionProvider"
    (session,) = sessions
    feed = {node.name: inputs[node.name] for node in session.get_inputs()}
    if spec.get("generate"):
        return generation.uncached_step(session, feed, spec["generate"]), "CPUExecutionProvider"
    names = [node.name for node in session.get_outputs()]
    return lambda: session.run(names, feed), "CPUExecutionProvider"


def torch_step(spec: dict[str, Any]) -> tuple[Step, str]:
    """One inference in eager PyTorch on the CPU, and "cpu"."""
    import numpy as np
    import torch

    from pipeline.forms.text.remapped import split
    from pipeline.model import TorchModel, call

    torch.set_num_threads(spec["threads"])
    torch.set_num_interop_threads(1)
    torch.inference_mode().__enter__()  # for the rest of this process
    module, vocabulary = split(TorchModel.load(Path(spec["model"]), Path(spec["folder"]), allow=None).module)
    with np.load(spec["inputs"], allow_pickle=False) as arrays:
        inputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if vocabulary:  # whoever deploys the model has the pruned tokenizer
        inputs = vocabulary.translate(inputs)
    return lambda: call(module, inputs), "cpu"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
