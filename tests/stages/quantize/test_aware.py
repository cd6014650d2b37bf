from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pipeline.base.use import Reference
from pipeline.context import Context
from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.task import Split
from stages.export.hugging_face import library_model
from stages.kd.objective import Distillation
from stages.kd.teacher import Teacher
from stages.prune.channels import ChannelPruning
from stages.quantize.aware import AwareQuantization, prepared
from stages.quantize.dynamic import DynamicQuantization
from stages.quantize.static import StaticQuantization
from stages.quantize.training.module import USE, part_of
from tests.contexts import bare_context, preview_of, quadrants, refused, tiny_task
from tests.stages.quantize.training.aware_nets import model_of


def ran(stage: AwareQuantization, model: TorchModel, folder: Path, **changes: Any) -> tuple[TorchModel, dict[str, Any]]:
    """What a stage makes of a model, and what it reports."""
    folder.mkdir(exist_ok=True)
    reports: dict[str, Any] = {}
    return stage.run(model, bare_context(folder, report=reports.__setitem__, **changes)), reports


def test_it_trains_and_reports_every_weight(tmp_path: Path) -> None:
    stage = AwareQuantization(epochs=1, bits=2, layers={"conv2": "ternary"}, first_last=8)
    result, reports = ran(stage, model_of("Residual"), tmp_path)
    bits = {name: row["bits"] for name, row in reports["aware"]["weights"].items()}
    assert bits == {
        "conv1.weight": 8, "conv2.weight": "ternary", "conv3.weight": 2, "hidden.weight": 2, "head.weight": 8,
    }  # fmt: skip
    assert {row["kernel"] for row in reports["aware"]["weights"].values()} == {"integer"}
    assert reports["aware"]["activations"] == {"type": "uint8", "quantized": 7}
    part = part_of(result.module)
    codes = part.of_weight("conv2.weight").integers(result.module.get_parameter("conv2.weight")).codes
    assert set(codes.unique().tolist()) <= {-1, 0, 1}


def test_a_part_names_all_layers_in_it_and_the_nearest_name_counts(tmp_path: Path) -> None:
    layers = {"encoder": 4, "encoder.layers.0.self_attn": "apot4"}
    _, reports = ran(AwareQuantization(epochs=1, layers=layers), model_of("Encoder"), tmp_path)
    bits = [row["bits"] for row in reports["aware"]["weights"].values()]
    assert bits == [8, "apot4", "apot4", 4, 4, 8]


def test_steps_and_weights_are_trained_and_zeros_stay(tmp_path: Path) -> None:
    model = model_of("Residual")
    weight = model.module.conv3.weight
    weight.data[weight.abs() < 0.05] = 0
    zeros = weight == 0
    assert zeros.any()
    result, reports = ran(AwareQuantization(epochs=2, bits=4), model, tmp_path)
    trained = result.module.conv3.weight
    assert torch.equal(trained == 0, zeros)
    assert reports["aware"]["weights"]["conv3.weight"]["zeros"] == int(zeros.sum())
    start = part_of(TorchModel.load(saved(result, tmp_path), Path(__file__).parent / "training").module)
    assert all(p.requires_grad for p in start.parameters())
    steps = torch.stack([q.log_step for q in part_of(result.module).activations])
    assert len(set(steps.tolist())) == len(steps)


def saved(model: TorchModel, folder: Path) -> Path:
    model.save(folder / "saved")
    return folder / "saved"


def test_bits_fall_along_a_gradual_training(tmp_path: Path) -> None:
    stage = AwareQuantization(epochs=4, bits="ternary", gradual=True)
    result, reports = ran(stage, model_of("Residual"), tmp_path)
    assert [name for name in reports if name.startswith("training")] == [f"training_{i}" for i in (1, 2, 3, 4)]
    assert [len(reports[f"training_{i}"]) for i in (1, 2, 3, 4)] == [1, 1, 1, 1]
    assert part_of(result.module).schemes["conv2.weight"] == "ternary"
    assert len(result.edits) == 2


def test_the_teachers_logits_are_kept_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    losses: list[str] = []
    answer, forward = Teacher.answer, Distillation.forward

    def watched(self: Teacher, *args: Any, **named: Any) -> Any:
        calls.append(self.cached is not None)
        return answer(self, *args, **named)

    def counted(self: Distillation, *args: Any) -> Tensor:
        losses.append(",".join(type(term).__name__ for term in self.terms))
        return forward(self, *args)

    monkeypatch.setattr(Teacher, "answer", watched)
    monkeypatch.setattr(Distillation, "forward", counted)
    ran(AwareQuantization(epochs=1), model_of("Residual"), tmp_path)
    assert calls == [True] * 4
    assert set(losses) == {"Labels,Logits"}


def test_a_term_looks_at_layers_by_their_names(tmp_path: Path) -> None:
    terms = [{"use": "features", "layers": [["conv2", "conv2"]]}, {"use": "labels"}]
    stage = AwareQuantization.model_validate({"epochs": 1, "terms": terms})
    result, _ = ran(stage, model_of("Residual"), tmp_path)
    assert "conv2" in dict(result.module.named_modules())


def test_labels_alone_teach_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Distillation, "__init__", None)
    ran(AwareQuantization(epochs=1, teacher="labels"), model_of("Residual"), tmp_path)


def checks(stage: AwareQuantization, before: tuple[Any, ...] = (), name: str = "Residual") -> Any:
    model = model_of(name)
    return chain(stage.check(before, preview_of(model)), stage.reach(model))


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    refused("`layers` names `conv22`.*conv2", checks(AwareQuantization(layers={"conv22": 4})))
    refused("`layers` names `relu`", checks(AwareQuantization(layers={"relu": 4})))


def test_fewer_bits_that_no_layer_would_have_are_refused() -> None:
    bag = model_of("Bag", {"input": torch.zeros(4, 3, dtype=torch.long)})
    refused("all weights stay at 8 bits", AwareQuantization(bits=4).reach(bag))
    assert "the weights of 2 layers" in next(iter(AwareQuantization(bits=4, first_last=4).reach(bag)))


def test_a_codebook_larger_than_its_tensor_is_refused() -> None:
    stage = AwareQuantization.model_validate({"layers": {"conv1": {"codebook": 256}}})
    refused(r"`conv1.weight` has 54 numbers, fewer than the 256", checks(stage))


def kept(**keep: Any) -> AwareQuantization:
    return AwareQuantization.model_validate({"keep": {"drop": 0.1, **keep}})


def test_how_many_trainings_a_score_may_take_is_told_before_work() -> None:
    notes = [text for text in checks(kept(trainings=3)) if "keep" in text]
    assert notes == ["`keep` is sought among mixtures of 8, 4, 2: 3 trainings of 10 epochs at most"]
    assert [*kept(trainings=3).trainings()] == [(64, 1)] * 3


def test_what_keep_chooses_may_not_stand_beside_it_and_each_layer_has_a_width() -> None:
    refused("`bits` stands beside `keep`", checks(kept().model_copy(update={"bits": 4})))
    refused("`first_last` stands beside `keep`", checks(AwareQuantization(first_last=4, keep=kept().keep)))
    books = [{"codebook": 64}, {"codebook": 128}]
    refused("`conv1` has a weight of 54 numbers, fewer than each codebook of `keep`", checks(kept(widths=books)))
    few = preview_of(model_of("Residual"), examples=20)
    refused(r"validation has 20 examples.*36 or more for drop 0\.1", kept().check((), few))


def test_weights_of_another_type_are_refused() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)).bfloat16()
    model = model_of("Residual")
    halves = replace(model, module=module, example={"input": model.example["input"].bfloat16()})
    refused("`0.weight` is bfloat16; expected float32", AwareQuantization().check((), preview_of(halves)))


def test_a_forward_apart_from_the_class_is_refused() -> None:
    model = model_of("Residual")
    model.module.forward = lambda x: x
    refused("a forward of its own", AwareQuantization().reach(model), StageError)


def test_a_model_is_quantized_once() -> None:
    first = AwareQuantization()
    refused("an earlier stage quantizes already", checks(AwareQuantization(), (first,)))
    for later in (StaticQuantization(), DynamicQuantization()):
        refused("an earlier stage quantizes already", later.check((first,), preview_of(model_of("Residual"))))


def test_a_percentile_without_its_method_is_refused_and_few_examples_are_warned_of() -> None:
    refused("`percentile` is 99 and `calibration` is mse", checks(AwareQuantization(percentile=99)))
    stage = AwareQuantization(examples=20)
    assert any("uses 20 examples" in text for text in checks(stage))


def test_a_cpu_whose_sums_saturate_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2"})
    assert any("has no VNNI" in text for text in checks(AwareQuantization()))
    monkeypatch.setattr("pipeline.base.hardware.cpu_flags", lambda: {"avx2", "avx_vnni"})
    assert not any("VNNI" in text for text in checks(AwareQuantization()))


def test_bits_or_a_codebook_are_asked_for() -> None:
    with pytest.raises(ValidationError, match="`bits` is 4 and `codebook` is 16: leave one out"):
        AwareQuantization(bits=4, codebook=16)


def test_epochs_are_enough_for_the_steps_of_a_gradual_one() -> None:
    with pytest.raises(ValidationError, match="3 epochs cannot be divided among the 4 steps"):
        AwareQuantization(gradual=True, bits=2, epochs=3)


def nan_task() -> Split:
    data = quadrants(64, 0)
    images = data.tensors[0].clone()
    images[3, 0, 0, 0] = float("nan")
    return Split(TensorDataset(images, data.tensors[1]))


def test_calibration_data_with_nan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not finite on calibration data"):
        ran(AwareQuantization(epochs=1), model_of("Residual"), tmp_path, calibration=nan_task())


def test_pruning_before_it_works_and_the_weights_it_left_are_quantized(tmp_path: Path) -> None:
    (tmp_path / "pruned").mkdir()
    pruned = ChannelPruning(channels=0.7, round_to=1).run(model_of("Residual"), pruning_context(tmp_path / "pruned"))
    result, _ = ran(AwareQuantization(epochs=1), pruned, tmp_path)
    loaded = TorchModel.load(saved(result, tmp_path), Path(__file__).parent / "training")
    assert torch.equal(loaded.predict(result.example)["output"], result.predict(result.example)["output"])


def test_pruning_and_optimum_refuse_what_is_quantized(tmp_path: Path) -> None:
    result, _ = ran(AwareQuantization(epochs=1), model_of("Residual"), tmp_path)
    with pytest.raises(StageError, match=r"Put prune\.channels before quantize\.aware"):
        ChannelPruning(macs=0.5).run(result, pruning_context(tmp_path))
    builder = Reference(use="encoders.py:vit", folder=Path(__file__).parents[2])
    folded, plan = prepared(TorchModel.build(builder, result.example))
    vit = folded.edited(USE, plan=plan.to_json(), schemes=dict.fromkeys(plan.axes, 8), activations="uint8")
    with pytest.raises(StageError, match=r"Use export\.onnx, or leave quantize\.aware out"):
        library_model(vit, generates=False)


def pruning_context(folder: Path) -> Context:
    return bare_context(folder, calibration=tiny_task().calibration)
