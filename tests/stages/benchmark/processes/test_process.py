"""What passes to the processes that answer and back: batch by batch, in pieces, and never held whole."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StageError
from stages.benchmark.processes import process
from stages.benchmark.processes.process import answers
from tests.aliases import Patch
from tests.graphs import products

BATCHES = [{"input": np.full((2, 32), i, np.float32)} for i in range(5)]
PIECE = 2 * BATCHES[0]["input"].nbytes


def spec(folder: Path) -> dict[str, Any]:
    return {"runner": "onnxruntime", "model": str(products(folder / "m.onnx", 2).path), "threads": 1}


@pytest.mark.parametrize(("piece", "processes"), [(PIECE, 3), (2**20, 1)])
def test_a_split_too_large_for_one_piece_is_answered_in_several(
    tmp_path: Path, monkeypatch: Patch, piece: int, processes: int
) -> None:
    run, sizes = process.run_process, []

    def counted(spec: Any, folder: Path, did: str) -> Any:
        sizes.append(Path(spec["batches"]).stat().st_size)
        return run(spec, folder, did)

    monkeypatch.setattr(process, "run_process", counted)
    outputs = list(answers(spec(tmp_path), iter(BATCHES), tmp_path, piece))
    assert len(sizes) == processes
    assert max(sizes) < piece + BATCHES[0]["input"].nbytes + 2000  # of the file's own
    for batch, output in zip(BATCHES, outputs, strict=True):
        np.testing.assert_array_equal(output["output"], batch["input"])  # the weights are the identity


def living(arrays: list[Any]) -> int:
    return sum(array() is not None for array in arrays)


def test_neither_inputs_nor_outputs_are_held_whole(tmp_path: Path) -> None:
    inputs, outputs = list[Any](), list[Any]()

    def batches() -> Iterator[Any]:
        for i in range(40):
            array = np.full((2, 32), i, np.float32)
            inputs.append(weakref.ref(array))
            assert living(inputs) <= 2  # the last one is let go when the next is there
            yield {"input": array}
            del array

    for i, output in enumerate(answers(spec(tmp_path), batches(), tmp_path)):
        outputs.append(weakref.ref(output["output"]))
        assert (output["output"] == i).all()
        del output
        assert living(inputs) <= 2
        assert living(outputs) <= 1
    assert len(outputs) == 40


def test_no_batches_take_no_process_and_a_failing_one_is_told(tmp_path: Path) -> None:
    assert list(answers({"runner": "none", "model": "m"}, [], tmp_path)) == []
    with pytest.raises(StageError, match=r"the process that answered .*m\.onnx ended with 1"):
        list(answers({**spec(tmp_path), "runner": "none"}, BATCHES, tmp_path))
