"""Several graphs in one folder, with weights that they have in common once in one file beside them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.base.files import file_digest
from pipeline.errors import StageError, blame
from pipeline.forms.graph import graphs_in, refill

DATA = "weights.data"
CONFIGS = ("config.json", "generation_config.json")
"""What Optimum reads beside the graphs."""
LEAST_BYTES = 128
"""Smaller ones stay in their graph: to say where they are would take as many bytes."""
WHOLE_NUMBERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
ALIGNMENT = 16


def save_together(graphs: Mapping[str, onnx.ModelProto], folder: Path) -> list[Path]:
    """The files NAME.onnx of the graphs, written and checked, with their larger weights in `weights.data`.

    Equal weights are written once. So is a matrix and its transpose, such as an embedding and the output layer that is
    tied to it: the graph that comes later reads it through a Transpose, which the runtime folds when it loads.

    Args:
        graphs: by name, all weights inside; they are not changed.
        folder: is made; what was in it under these names is replaced.

    Raises:
        StageError: the checker refuses a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, paths = _Weights(), [folder / f"{name}.onnx" for name in graphs]
    protos = [_outside(proto, weights) for proto in graphs.values()]
    (folder / DATA).write_bytes(bytes(weights.content))
    for path, proto in zip(paths, protos, strict=True):
        path.write_bytes(proto.SerializeToString(deterministic=True))
        with blame(StageError, path.name):
            onnx.checker.check_model(path)
    return paths


def graphs_at(path: Path) -> list[Path]:
    """The graphs of a model that is deployed: a file is its own, a folder has several."""
    return sorted(path.glob("*.onnx")) if path.is_dir() else [path]


def digest_of(path: Path) -> str:
    """SHA-256 of what is deployed: of a file; of a folder, of the lines that `sha256sum` says of its files in order."""
    if path.is_file():
        return file_digest(path)
    files = sorted(file for file in path.iterdir() if file.suffix in (".onnx", ".data") or file.name in CONFIGS)
    lines = "".join(f"{file_digest(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def stored(paths: list[Path]) -> list[tuple[Path, onnx.TensorProto]]:
    """Every initializer of the graphs as it lies on disk: one that several of them read is there once."""
    tensors, places = [], set[tuple[str, ...]]()
    for path in paths:
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            place = tuple(sorted(f"{entry.key}={entry.value}" for entry in tensor.external_data))
            if not place or place not in places:
                tensors.append((path, tensor))
            places.add(place)
    return tensors


def load_whole(path: Path) -> onnx.ModelProto:
    """A graph with all weights inside.

    `onnx.load` refuses weights in a file that has several names, as those in a run folder have: they are links into the
    store.
    """
    proto = onnx.load(path, load_external_data=False)
    for tensor in _tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            with (path.parent / place["location"]).open("rb") as file:
                file.seek(int(place.get("offset", 0)))
                tensor.raw_data = file.read(int(place["length"]) if "length" in place else -1)
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.DEFAULT
    return proto


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The initializers and constants of a graph and of those inside its nodes."""
    for part in graphs_in(graph):
        yield from part.initializer
        for attribute in (attribute for node in part.node for attribute in node.attribute):
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)


@dataclass
class _Weights:
    """What stands in the data file, and where."""

    content: bytearray = field(default_factory=bytearray)
    places: dict[tuple[str, tuple[int, ...], bytes], tuple[int, int]] = field(default_factory=dict)

    def __contains__(self, array: NDArray[np.generic]) -> bool:
        return _key(array) in self.places

    def put(self, array: NDArray[np.generic]) -> tuple[int, int]:
        """Offset and length of an array, which is added if it is not there."""
        key = _key(array)
        if key not in self.places:
            self.content += bytes(-len(self.content) % ALIGNMENT)
            self.places[key] = len(self.content), array.nbytes
            self.content += array.tobytes()
        return self.places[key]


def _key(array: NDArray[np.generic]) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest()


def _outside(proto: onnx.ModelProto, weights: _Weights) -> onnx.ModelProto:
    """A copy whose larger weights are in the data file."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    turned: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        # Shapes stay in the graph too, for the runtime has to know them when it loads.
        if array.nbytes < LEAST_BYTES or tensor.data_type in WHOLE_NUMBERS:
            continue
        upright = array.T.copy() if array.ndim == 2 else None
        if upright is not None and array not in weights and upright in weights:
            name = f"{tensor.name}_T"
            turned.append(onnx.helper.make_node("Transpose", [name], [tensor.name], name, perm=[1, 0]))
            tensor.name, array = name, upright
        _point(tensor, array, *weights.put(array))
    refill(model.graph.node, [*turned, *model.graph.node])
    return model


def _point(tensor: onnx.TensorProto, array: NDArray[np.generic], offset: int, length: int) -> None:
    """Make an initializer one that lies in the data file."""
    tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=array.shape))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": DATA, "offset": str(offset), "length": str(length)}.items():
        tensor.external_data.add(key=key, value=value)
