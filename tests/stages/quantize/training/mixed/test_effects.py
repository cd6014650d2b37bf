"""The sensitivity of layers before a training: fewer bits move answers more, and a store measures it once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.base.code.sources import Sources
from pipeline.errors import Interruption
from pipeline.forms.text.remapped import split
from pipeline.measure.agreement import kl_divergence
from pipeline.model import TorchModel
from pipeline.task import Task
from stages.quantize.aware import AwareQuantization, prepared
from stages.quantize.mixed.measuring import Row
from stages.quantize.training.mixed.effects import Layers, kept, measure
from stages.quantize.training.mixed.keep import TrainedKeep
from stages.quantize.training.mixed.parts import parts_of
from tests.contexts import context_of


class Measured:
    """The rows of a network, and how it was begun with widths."""

    def __init__(self, model: TorchModel, task: Task, folder: Path, widths: list[Any]) -> None:
        self.folded, self.plan = prepared(model)
        self.ctx, self.times = context_of(task, folder, kept=self.kept), 0
        self.folder, self.starts = folder, list[Layers]()
        keep = TrainedKeep.model_validate({"drop": 0.1, "widths": widths, "examples": 64})
        parts = parts_of(split(self.folded.module)[0], self.plan)

        def make(to: Path) -> None:
            measure(keep, parts, self.untrained, self.ctx, to)

        self.rows: list[Row] = kept(keep, make, {}, model, self.ctx)

    def untrained(self, layers: Layers) -> TorchModel:
        self.starts.append(layers)
        stage = AwareQuantization.model_validate({"layers": layers})
        schemes = stage._schemes(self.folded, self.plan, ValueError)  # type: ignore[arg-type]
        return stage._started(self.folded, self.plan, schemes, self.folded, self.ctx)

    def kept(self, what: str, model: Any, parts: Any, make: Any) -> Path:
        self.folder.mkdir(exist_ok=True)
        if not self.times:
            make(self.folder)
        self.times += 1
        return self.folder


def test_fewer_bits_move_the_answers_more(learned: TorchModel, task: Task, tmp_path: Path) -> None:
    measured = Measured(learned, task, tmp_path / "one", [8, "apot3", 4, 2])
    assert [(row.layer, row.operator, row.elements) for row in measured.rows] == [
        ("conv1", "conv2d", 72), ("conv2", "conv2d", 576), ("head", "linear", 128)
    ]  # fmt: skip
    effects = np.array([[row.effects[width] for width in ("8", "4", "2")] for row in measured.rows])
    assert (np.diff(effects, axis=1) > 0).all()
    assert all(row.effects["8"] < row.effects["apot3"] for row in measured.rows)


def test_a_layer_alone_in_integers_answers_so_far_from_floats(learned: TorchModel, task: Task, tmp_path: Path) -> None:
    """The first convolution, whose weights are rounded by hand; what it reads is the image, in 8 bits."""
    measured = Measured(learned, task, tmp_path / "one", [3, 2])
    start = measured.untrained(dict.fromkeys(("conv1", "conv2", "head"), 2))
    inputs = next(iter(task.calibration.select(list(range(64))).loader(64))).inputs["input"]
    part, module = start.module.fake_quantization, prepared(learned)[0].module
    before = module(inputs)
    module.conv1.weight.data = part.of_weight("conv1.weight")(module.conv1.weight).detach()
    step = part.of_activation(0).step * part.of_weight("conv1.weight").step.detach()
    module.conv1.bias.data = (module.conv1.bias.data / step).round() * step
    after = module(part.of_activation(0)(inputs))
    divergence = 16 * float(kl_divergence(before / 4, after / 4, task.labelling).mean())
    assert measured.rows[0].effects["2"] == pytest.approx(divergence, rel=0.01)


def test_what_is_kept_holds_for_all_code_that_begins_it(learned: TorchModel, task: Task, tmp_path: Path) -> None:
    def kept(what: str, model: Any, parts: Any, make: Any) -> Path:
        raise Interruption(make.__code__.co_filename)

    stage = AwareQuantization.model_validate({"keep": {"drop": 0.1}})
    with pytest.raises(Interruption) as kept_for:
        stage.run(learned, context_of(task, tmp_path / "stage", kept=kept))
    code = Sources().code([Path(str(kept_for.value))])
    assert {f"stages/quantize/{name}.py" for name in ("aware", "training/ranges", "training/folding")} <= {*code}


def test_a_codebook_larger_than_a_layer_is_no_choice_for_it(learned: TorchModel, task: Task, tmp_path: Path) -> None:
    measured = Measured(learned, task, tmp_path / "one", [8, {"codebook": 100}])
    assert [[*row.effects] for row in measured.rows] == [["8"], ["8", "codebook 100"], ["8", "codebook 100"]]
