"""What a run says of the CPUs that it is for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.measure.accuracy import Evaluation
from pipeline.measure.isa.emulate import emulate
from pipeline.model import OnnxModel
from pipeline.records.record import Record
from pipeline.runner import run
from tests.aliases import Make
from tests.contexts import quadrants
from tests.users import chain_of, stage_file

# Weights of the first class are neighbours, whose sums saturate; the others have a zero between each two.
FIT = stage_file(
    """
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        weight = module[1].weight.fill_(-0.2).view(4, 8, 8)
        for label in range(4):
            row, column = 4 * (label // 2), 4 * (label % 2)
            weight[label, row : row + 4, column : column + 4 : 1 + (label > 0)] = 1 + (label > 0)
        module[1].bias.copy_(torch.tensor([-4.0, 0, 0, 0]))
    return replace(model, module=module)
    """
)
CHAIN = chain_of("export.onnx", "quantize.dynamic", "quantize.pack", baseline="fit.py")


def record_of(quick: Make, keys: str, chain: str = CHAIN) -> Record:
    file = quick(chain + keys, **{"fit.py": FIT})
    return run(file, runs=Path(file).parent / "runs", track=False)


def test_what_files_with_integers_answer_there_stands_beside_what_they_answer_here(quick: Make, tmp_path: Path) -> None:
    record = record_of(quick, "target: {isa: avx2}\nbudget: {retention: {min: 0.97}}\n")
    exported, quantized, packed = record.stages
    assert exported.target is None  # it has no integers
    target = quantized.target
    assert target
    assert target.score is not None
    assert target.drop
    assert target.flips
    assert target.score < quantized.score - 0.02
    assert target.drop.value == pytest.approx(quantized.score - target.score)
    assert target.flips.lost - target.flips.gained == pytest.approx(128 * target.drop.value)
    assert (target.keeps_budget, target.budget_here_alone, target.reduce_range_helps) == (False, True, True)
    assert [layer.shape for layer in target.layers] == [[64, 4]]
    assert target.layer_examples == 64
    assert packed.target
    assert packed.target.model_dump(exclude={"layers"}) == target.model_dump(exclude={"layers"})
    model = OnnxModel.load(Path(record.folder) / quantized.folder)
    emulated: Any = emulate(model, "avx2", tmp_path / "again").model
    here = Evaluation.load(Path(record.folder) / quantized.predictions)
    images = [image for image, _ in quadrants(128, 2)]
    outputs = torch.cat([emulated.predict({"input": image[None]})["output"] for image in images])
    assert target.changed == float((outputs.argmax(1) != here.predictions.argmax(1)).double().mean())
    said = [text for text in record.warnings if "on avx2, emulated" in text]
    assert len(said) == 1  # the packed file answers the same
    assert "the budget is kept here and not there; sums saturate most in" in said[0]
    assert "`reduce_range: true` avoids that at the same size" in said[0]
    page = (Path(record.folder) / "report.html").read_text()
    assert "On the CPUs that it is for" in page
    assert "Layers whose sums saturate" in page


def test_with_seven_bits_the_same_is_answered_there(quick: Make) -> None:
    chain = CHAIN.replace("quantize.dynamic", "quantize.dynamic, reduce_range: true")
    record = record_of(quick, "target: {isa: avx512}\n", chain)
    target = record.stages[1].target
    assert target
    assert (target.score, target.changed, target.layers) == (record.stages[1].score, 0, [])
    assert not [text for text in record.warnings if "avx512" in text]
    assert any("on avx512, emulated, it answers as here, with a score of" in text for text in record.notes)


def test_a_run_without_integers_is_told_so(quick: Make) -> None:
    record = record_of(quick, "target: {isa: avx2}\n", chain_of("export.onnx", baseline="fit.py"))
    assert record.stages[-1].target is None
    assert any("target: no file of this run has integers" in text for text in record.warnings)


def test_an_unknown_kind_of_cpu_is_refused(quick: Make) -> None:
    with pytest.raises(ConfigError, match="`isa` is 'avx'; expected 'avx2', 'avx512', 'vnni' or 'arm64'") as caught:
        record_of(quick, "target: {isa: avx}\n")
    assert caught.value.exit_code == 2


def test_the_answers_come_from_the_store_and_stand_in_the_record(quick: Make) -> None:
    first, second = (record_of(quick, "target: {isa: avx2}\n") for _ in range(2))
    assert first.stages[1].target == second.stages[1].target
    events = [json.loads(line) for line in (Path(second.folder) / "journal.jsonl").read_text().splitlines()]
    assert not [event for event in events if event["event"] == "begin" and "on avx2" in event.get("place", "")]
