"""The proof after a stage: in the record, said, kept for this machine, and refused where the config says so."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import shrinkline
from pipeline import runner
from pipeline.base.estimate import Estimate
from pipeline.deploy import deploy
from pipeline.errors import StageError
from pipeline.forms.deployed.seq2seq import Seq2SeqOnnx
from pipeline.model import OnnxModel
from pipeline.records.figures import metrics
from pipeline.records.parts.kernels import Fallback, KernelAlarm, Kernels, OperatorUse
from pipeline.records.record import Record
from pipeline.run.proofs import faster
from pipeline.run.result import Result
from pipeline.runner import run
from tests.aliases import Make, Patch
from tests.conftest import TinyNet
from tests.test_shrinkline import pairs
from tests.users import only_run, stage_file

HEAVIER = stage_file(
    """
    import numpy as np
    import onnx
    proto = onnx.load(model.path)
    image = proto.graph.input[0].name
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "eye"))
    names = [image, *(f"heavy{i}" for i in range(40))]
    for node in proto.graph.node:
        node.input[:] = [names[-1] if name == image else name for name in node.input]
    for i, ends in enumerate(zip(names, names[1:])):
        proto.graph.node.insert(i, onnx.helper.make_node("MatMul", [ends[0], "eye"], [ends[1]]))
    onnx.save(proto, ctx.directory / "heavier.onnx")
    return OnnxModel(ctx.directory / "heavier.onnx", model.example)
    """,
    form="OnnxModel",
)
HEAD = "task: {use: data.py}\nmodel: {use: models.py:TinyNet}\n"
CHAIN = f"{HEAD}stages: [{{use: export.onnx}}, {{use: heavier.py}}]\n"
RATIO = Estimate(value=1.5, low=1.4, high=1.6)
BAD = Kernels(
    operators=[OperatorUse(operator="Conv", count=2, integer=False, macs=10, time_share=0.5)],
    integer_macs=0.25,
    ratio=RATIO,
    slower=True,
    alarms=[KernelAlarm(pattern="a GRU", nodes=["gru"], why="it is one", remedy="Leave it in floats")],
    floats=[Fallback(nodes=["conv1"], operator="Conv", why="nothing quantizes it")],
)


@pytest.fixture
def heavier(project: Make) -> Path:
    """The pipeline file of a chain whose second stage makes the network slower."""
    return project(CHAIN, **{"heavier.py": HEAVIER})  # type: ignore[no-any-return]


def ran(path: Path, *overrides: str) -> Record:
    return run(path, overrides=[*overrides], runs=path.parent / "runs", track=False)


def test_a_slower_file_is_warned_of_and_measured_once(heavier: Path) -> None:
    first, second = ran(heavier), ran(heavier)
    assert [stage.kernels is None for stage in first.stages] == [True, False]  # an export alone changes nothing
    kernels = first.stages[1].kernels
    assert kernels
    assert kernels.slower
    assert second.stages[1].kernels == kernels  # kept for this machine
    assert [text for text in first.warnings if text.startswith("stages[1] (heavier.py): its file is slower")]
    assert metrics(first.stages[1])["latency_ratio_before"] == kernels.ratio.value  # type: ignore[union-attr]


def test_what_it_rests_on_is_among_the_keys_of_the_record(heavier: Path) -> None:
    stage = ran(heavier).stages[1]
    entries = [heavier.parent / "runs" / "store" / "entries" / key for key in stage.uses]
    (kernels,) = [entry for entry in entries if '"stage": "kernels"' in (entry / "parts.json").read_text()]
    assert '"host"' in (kernels / "parts.json").read_text()


def test_the_run_fails_where_the_config_says_so(heavier: Path, shrink: Make, monkeypatch: Patch) -> None:
    monkeypatch.setattr(runner, "open_tracking", lambda *_, **__: nullcontext())
    ended = shrink("run", heavier, "--set", "slower=fail", "--runs", heavier.parent / "runs")
    assert ended.code == 3, ended.err
    assert "its file is slower than what came in" in ended.err
    assert "slower: warn" in ended.err
    record = Record.load(only_run(heavier.parent))
    assert record.failure
    assert record.failure.exit_code == 3
    assert record.stages[1].kernels  # what it was judged by


def test_it_may_be_ignored(heavier: Path) -> None:
    record = ran(heavier, "slower=ignore")
    assert record.stages[1].kernels
    assert not [text for text in record.warnings if "slower" in text]


def test_from_python_too(tmp_path: Path) -> None:
    (tmp_path / "heavier.py").write_text(HEAVIER)
    options: dict[str, Any] = {"runs": tmp_path / "runs", "folder": tmp_path, "track": False}
    with pytest.raises(StageError, match="slower than what came in"):
        shrinkline.compress(TinyNet(), **pairs(), stages=["export.onnx", "heavier.py"], slower="fail", **options)


def test_training_is_not_looked_at_and_pruning_and_quantizing_are(project: Make) -> None:
    stages = (
        "train.supervised, epochs: 1",
        "prune.channels, channels: 0.5, round_to: 1",
        "export.onnx",
        "quantize.static",
    )
    chain = f"{HEAD}stages:\n" + "".join(f"  - {{use: {stage}}}\n" for stage in stages)
    record = ran(project(chain))
    assert [stage.name for stage in record.stages if stage.kernels] == ["prune.channels", "quantize.static"]
    assert record.stages[3].kernels
    assert record.stages[3].kernels.integer_macs == 1.0
    assert any("100% of MACs in integers" in note for note in record.notes)


def test_a_file_from_outside_is_looked_at_too(project: Make, tiny: Make, tmp_path: Path) -> None:
    deploy(tiny(), tmp_path / "project" / "net.onnx")
    chain = "task: {use: data.py}\nmodel: {onnx: net.onnx}\nstages: [{use: quantize.static}]\n"
    kernels = ran(project(chain)).stages[0].kernels
    assert kernels
    assert kernels.integer_macs == 1.0
    assert kernels.ratio


def test_an_encoder_decoder_is_left_to_the_benchmark() -> None:
    graphs = (
        Mock(deployed=Mock(spec=Seq2SeqOnnx), digest="before"),
        Mock(deployed=Mock(spec=Seq2SeqOnnx), digest="after"),
    )
    result = faster.proven(Mock(), "stages[1]", Result(Mock(), "after", Path()), *graphs)
    assert result.notes == (faster.UNSEEN,)
    before = Mock(deployed=Mock(spec=OnnxModel), digest="before")
    exported = faster.proven(Mock(), "stages[1]", Result(Mock(), "after", Path()), before, graphs[1])
    assert exported.notes == ()  # it is no longer the same kind of file


def test_what_is_said_and_warned_of() -> None:
    fast = BAD.model_copy(update={"slower": False, "ratio": Estimate(value=0.5, low=0.4, high=0.6), "alarms": []})
    integers = fast.model_copy(update={"operators": [fast.operators[0].model_copy(update={"integer": True})]})
    same = fast.model_copy(update={"ratio": Estimate(value=0.99, low=0.97, high=1.01)})
    large = fast.model_copy(update={"ratio": None, "ratio_reason": "one inference takes 2.0 s"})
    assert [*faster.said(integers)] == ["25% of MACs in integers, takes 0.50 [0.40, 0.60] of the time of what came in"]
    assert [*faster.said(fast)] == ["takes 0.50 [0.40, 0.60] of the time of what came in"]
    assert [*faster.said(same)] == []
    assert [*faster.said(large)] == ["not timed: one inference takes 2.0 s"]
    assert [*faster.doubts(fast)] == []
    slow, alarm = faster.doubts(BAD)
    assert "1.50 [1.40, 1.60]" in slow
    assert alarm == "a GRU: gru: it is one. Leave it in floats"
    (slow,) = faster.doubts(BAD.model_copy(update={"alarms": []}))
    assert slow.endswith("; in floats: Conv conv1: nothing quantizes it")


def test_a_refusal_tells_the_ratio_the_alarms_and_what_to_do() -> None:
    faster.refuse("stages[1]", BAD, "warn")
    faster.refuse("stages[1]", None, "fail")
    faster.refuse("stages[1]", BAD.model_copy(update={"slower": False}), "fail")
    with pytest.raises(StageError) as caught:
        faster.refuse("stages[1]", BAD, "fail")
    for part in ("stages[1]: ", "1.50 [1.40, 1.60]", "a GRU: Leave it in floats", "`slower: warn`"):
        assert part in str(caught.value)
