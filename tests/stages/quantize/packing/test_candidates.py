from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from onnx import version_converter

from pipeline.errors import StageError
from stages.quantize.packing.candidates import Candidate, candidates, first_right
from tests.packing import ternary


def proto(folder: Path) -> onnx.ModelProto:
    ternary(folder / "packed.onnx")
    return onnx.load(folder / "plain.onnx")


def opsets(some: list[Candidate]) -> list[int]:
    return [one.packed.proto.opset_import[0].version for one in some]


def test_the_smallest_comes_first_and_the_graph_stays(tmp_path: Path) -> None:
    whole = proto(tmp_path)
    before = whole.SerializeToString()
    every = candidates(whole, None)
    assert sorted(opsets(every)) == [20, 21]
    sizes = [one.packed.proto.ByteSize() for one in every]
    assert sizes == sorted(sizes)
    assert whole.SerializeToString() == before


def test_no_opset_is_newer_than_asked_for_or_than_can_be_converted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = proto(tmp_path)
    assert opsets(candidates(whole, 20)) == [20]

    def convert(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(version_converter, "convert_version", convert)
    assert opsets(candidates(whole, None)) == [20]


def test_the_first_that_is_right_is_taken_and_the_others_are_told_of(tmp_path: Path) -> None:
    every, notes = candidates(proto(tmp_path), None), list[str]()
    problems = iter(["its output `y` differs", ""])
    assert first_right(every, tmp_path / "trial.onnx", lambda _: next(problems), notes.append) is every[1].packed
    assert onnx.load(tmp_path / "trial.onnx") == every[1].packed.proto
    assert notes == [f"packed in {every[0].label} it is not taken: its output `y` differs"]


def test_where_none_is_right_the_last_problem_is_said(tmp_path: Path) -> None:
    every = candidates(proto(tmp_path), None)
    with pytest.raises(StageError, match=r"does not do what the file does: it is another.*Leave quantize\.pack out"):
        first_right(every, tmp_path / "trial.onnx", lambda _: "it is another", lambda _: None)


def test_one_that_onnx_runtime_does_not_load_is_not_taken(tmp_path: Path) -> None:
    every, notes = candidates(proto(tmp_path), None), list[str]()

    def wrong(path: Path) -> str:
        if onnx.load(path) == every[0].packed.proto:
            path.write_bytes(b"no graph")
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return ""

    assert first_right(every, tmp_path / "trial.onnx", wrong, notes.append) is every[1].packed
    (note,) = notes
    assert f"packed in {every[0].label} it is not taken: it does not run, ONNX Runtime: InvalidProtobuf" in note
