from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from stages.quantize.packing.codes import digits
from stages.quantize.packing.codes.encodings import Decoded, write
from stages.quantize.packing.codes.writer import Writer
from tests.aliases import Patch
from tests.graphs import graph, node

RNG = np.random.default_rng(0)
BOOK = np.sort(RNG.choice(np.arange(-127, 128), 100, replace=False))


def drawn(values: Any, count: int, share: float = 1.0) -> Any:
    """Numbers of which all values occur."""
    values = np.asarray(values, np.int8)
    numbers = np.append(values, RNG.choice(values, count - len(values)))
    return numbers * (RNG.random(count) < share).astype(np.int8)


CASES = {
    "int4": drawn(range(-7, 8), 501),
    "planes3": drawn(range(-4, 4), 501),
    "planes2": drawn(range(-2, 2), 501),
    "ternary": drawn([-1, 0, 1], 501),
    "codebook1": drawn([-100, 3], 501),
    "codebook2": drawn([-5, 0, 6], 501),  # not called ternary below: three values are, whatever they are
    "codebook3": drawn(BOOK[:5], 501),
    "codebook4": drawn(BOOK[:9], 501),
    "codebook5": drawn(BOOK[:30], 1001),
    "codebook6": drawn(BOOK[:40], 1001),
    "codebook7": drawn(BOOK, 3001),
    "sparse": drawn(BOOK[:50], 5001, share=0.1),
}


def runs(writer: Writer, decoded: Decoded, folder: Path) -> tuple[Any, Counter[str]]:
    """The integers in ONNX Runtime, and the operators that it runs."""
    add = node("Cast", [decoded.name], ["as_float"], to=TensorProto.FLOAT), node("Add", ["as_float", "x"], ["y"])
    proto = graph(
        [*writer.nodes, *add], {"x": [1]}, {"y": [None]}, writer.tensors,
        opset_imports=[onnx.helper.make_opsetid("", writer.opset)],
    )  # fmt: skip
    onnx.checker.check_model(proto, full_check=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimized.onnx").graph.node
    return session.run(None, {"x": np.zeros(1, np.float32)})[0], Counter(one.op_type for one in nodes)


@pytest.mark.parametrize("large", [False, True], ids=["divided", "looked-up"])
@pytest.mark.parametrize("opset", [13, 20, 21])
@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_decodes_what_was_stored_and_folds_all_of_it(
    name: str, opset: int, large: bool, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(digits, "LARGE", 1 if large else 2**19)
    integers = CASES[name]
    writer = Writer(opset)
    decoded = write(writer, integers)
    stored, operators = runs(writer, decoded, tmp_path)
    assert stored.shape == (decoded.length,)
    assert np.array_equal(stored[: len(integers)], integers)
    assert operators == {"Add": 1}
    assert decoded.payload < integers.size
    expected = {"int4": name if opset == 21 else "codebook4", "codebook2": "ternary"}
    assert decoded.encoding == expected.get(name, name)


@pytest.mark.parametrize("low", [-63, -128, 0])
def test_of_many_values_in_a_row_none_is_stored(low: int, tmp_path: Path) -> None:
    writer, integers = Writer(20), RNG.integers(low, low + 127, 4000).astype(np.int8)
    integers[integers == low + 5] = low  # one is missing
    decoded = write(writer, integers)
    stored, operators = runs(writer, decoded, tmp_path)
    assert np.array_equal(stored[: len(integers)], integers)
    assert (decoded.encoding, decoded.payload, operators) == ("codebook7", 7 * 500, {"Add": 1})


@pytest.mark.parametrize("opset", [20, 21])
def test_unsigned_integers_keep_their_type(opset: int, tmp_path: Path) -> None:
    for values in (range(16), [0, 120, 255], [3, 200]):
        writer, integers = Writer(opset), RNG.choice(np.array(values, np.uint8), 333)
        decoded = write(writer, integers)
        stored, _ = runs(writer, decoded, tmp_path)
        assert np.array_equal(stored[: len(integers)], integers)


def test_values_of_one_kind_take_a_bit(tmp_path: Path) -> None:
    writer = Writer(20)
    decoded = write(writer, np.full(100, -9, np.int8))
    assert np.array_equal(runs(writer, decoded, tmp_path)[0][:100], np.full(100, -9))
    assert decoded.payload == 14
