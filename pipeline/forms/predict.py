"""Predictions as JSON: python predict.py INPUTS, an .npz with an array for each input or an .npy for the only one."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession

HERE = Path(__file__).resolve().parent
NUMPY = {"float": "float32", "double": "float64"}  # the other types have the same name in ONNX and in numpy


def read(path: str) -> Any:
    """What a file holds; end with one message where that cannot be read."""
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no .npz or .npy of numbers"
        sys.exit(f"{path} cannot be read: {reason}")


def check(arrays: dict[str, Any], ports: list[Any]) -> None:
    """End with one message where names, dtypes or shapes are not what the model takes."""
    if set(arrays) != {port.name for port in ports}:
        sys.exit(f"the inputs are {sorted(arrays)}; expected {sorted(port.name for port in ports)}")
    for port in ports:
        array, kind = arrays[port.name], port.type.removeprefix("tensor(").removesuffix(")")
        if array.dtype != NUMPY.get(kind, kind):
            sys.exit(f"the input {port.name} has the dtype {array.dtype}; expected {NUMPY.get(kind, kind)}")
        fits = [not isinstance(a, int) or a == b for a, b in zip(port.shape, array.shape, strict=False)]
        if array.ndim != len(port.shape) or not all(fits):
            sys.exit(f"the input {port.name} has the shape {list(array.shape)}; expected {port.shape}")


if __name__ == "__main__":
    loaded = read(sys.argv[1]) if len(sys.argv) == 2 else sys.exit(__doc__)
    session = InferenceSession(HERE / "model.onnx", providers=["CPUExecutionProvider"])
    arrays = dict(loaded) if hasattr(loaded, "files") else {session.get_inputs()[0].name: loaded}
    check(arrays, session.get_inputs())
    names = [port.name for port in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, arrays), strict=True))
    shown: Any = {name: values.tolist() for name, values in outputs.items()}
    if classes := json.loads((HERE / "model.json").read_text())["classifier"]:  # softmax, at its largest
        best = [(row.argmax(), 1 / np.exp(row - row.max()).sum()) for row in outputs[classes["output"]].astype(float)]
        shown = [{"label": classes["labels"][place], "score": share} for place, share in best]
    sys.stdout.write(json.dumps(shown) + "\n")
