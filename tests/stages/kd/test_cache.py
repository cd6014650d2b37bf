"""Kept values: those of the teacher to the bit, for every view and length, whole or not at all, and flat in memory."""

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference
from pipeline.build.build import build
from pipeline.build.source import load_config
from pipeline.context import Context
from pipeline.errors import Interruption, StageError
from pipeline.model import TorchModel
from pipeline.records import journal
from pipeline.runner import run
from pipeline.task import Batch, Split
from stages.distill.logits import LogitDistillation
from stages.kd import cache as keeping
from stages.kd import teacher
from stages.kd.cache import BATCH_SIZE, CachedValues, fill, fitted
from stages.kd.losses.logits import soft_loss
from stages.kd.losses.sparse import Sparse, sparse_soft_loss
from stages.kd.student import Student
from stages.kd.teacher import Teacher
from stages.kd.top_classes import AT_ONCE, TeacherNeeds
from stages.trainer.loop import train
from stages.trainer.objective import Objective, Progress
from stages.trainer.settings import TrainingSettings
from tests.aliases import Make, Patch
from tests.trained import live_teacher, noisy
from tests.users import chain_of


def table(live: Teacher, ctx: Context, view: int) -> tuple[Tensor, Tensor]:
    """Inputs and logits of all examples in a view, by the teacher's own forward on the batches that are kept."""
    batches = list(ctx.train.loader(BATCH_SIZE, seed=ctx.seed, view=view, augment=ctx.augment))
    return torch.cat([b.inputs["input"] for b in batches]), torch.cat([live(b.inputs)["output"] for b in batches])


class Watching(Objective):
    """Notes which example was shown how in which view."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views, self.shown = views, list[tuple[int, Tensor, Tensor]]()

    def forward(self, batch: Any, outputs: Any, progress: Progress) -> Tensor:
        self.shown.append((progress.view, batch.index.clone(), batch.inputs["input"].clone()))
        return next(iter(outputs.values())).mean()


def test_training_shows_the_views_that_were_kept_and_the_logits_are_the_teachers_own(tiny: Make, context: Make) -> None:
    ctx, watching = context(augment=noisy, seed=3), Watching(views=3)
    live = live_teacher(tiny(), ctx)
    live.cache(ctx, TeacherNeeds(), views=3)
    tables = [table(live, ctx, view) for view in range(3)]
    assert not torch.equal(tables[0][0], tables[1][0])
    train(tiny(4), watching, TrainingSettings(epochs=4, batch_size=48), ctx)
    assert {view for view, _, _ in watching.shown} == {0, 1, 2}
    for view, index, inputs in watching.shown:
        assert torch.equal(inputs, tables[view][0][index])
        assert torch.equal(live.cached(index, view)["logits"], tables[view][1][index])
        torch.testing.assert_close(live({"input": inputs})["output"], tables[view][1][index])


class Tokens:
    """Sequences of several lengths, (length, 5) numbers."""

    def __init__(self, count: int) -> None:
        self.rows = [torch.randn(1 + i % 7, 5, generator=torch.Generator().manual_seed(i)) for i in range(count)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.rows[index], 0


def padded(rows: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    longest = max(len(inputs["input"]) for inputs, _ in rows)
    values = [F.pad(inputs["input"], (0, 0, 0, longest - len(inputs["input"]))) for inputs, _ in rows]
    return {"input": torch.stack(values)}, torch.zeros(len(rows))


def linear(classes: int, example: Tensor, scale: float = 1.0) -> TorchModel:
    torch.manual_seed(0)
    module = nn.Linear(5, classes)
    nn.init.normal_(module.weight, std=scale)
    return TorchModel(module, {"input": example}, Reference(use="torch.nn:Linear", arguments={"in_features": 5}))


def test_ragged_lengths_are_kept_as_each_batch_was_padded_and_fitted_to_another_padding(context: Make) -> None:
    order = [i for i in range(300) if i % 7 < 3] + [i for i in range(300) if i % 7 >= 3]  # batches of two lengths
    split = replace(Split(Tokens(300), collate=padded).select(order), collate=padded)
    ctx = context(train=split)
    live = live_teacher(linear(3, torch.randn(2, 4, 5)), ctx)
    live.cache(ctx, TeacherNeeds(), None)
    assert live.cached.ragged
    index = torch.tensor([0, 250, 7, 131])
    batch, _ = padded([split[int(i)] for i in index])
    expected = live(batch)["output"]
    found = live.cached(index, 0)["logits"]
    assert found.shape[1] == 7
    for row, i in enumerate(index):
        length = len(split[int(i)][0]["input"])
        torch.testing.assert_close(fitted(found, expected.shape[:2], -1)[row, :length], expected[row, :length])
    assert fitted(found[:, :2], expected.shape[:2], -1).shape == expected.shape
    # Classes on the first axis, and values without classes.
    assert fitted(found.transpose(1, 2), (4, 3), 1).shape == (4, 3, 3)
    assert fitted(found[..., 0], (4, 9)).shape == (4, 9)


def test_examples_of_one_length_are_computed_together_and_kept_in_their_order(context: Make) -> None:
    lengths = [2 + i * 37 % 11 for i in range(1500)]
    rows = [({"input": torch.full((length, 5), float(i))}, 0) for i, length in enumerate(lengths)]
    ctx, shapes = context(train=Split(rows, padded, lengths=lengths)), list[tuple[int, ...]]()

    def compute(inputs: Inputs) -> dict[str, Tensor]:
        shapes.append(tuple(inputs["input"].shape))
        return {"first": inputs["input"][:, 0, 0], "row": inputs["input"][:, 0]}

    fill(ctx.directory, ctx, compute, None, row_bytes=24)
    assert sum(count for count, *_ in shapes) == 1500
    assert sum(count * length for count, length, _ in shapes) < 1.1 * sum(lengths)  # hardly any padding
    kept = CachedValues(ctx.directory, 1500)
    index = torch.tensor([0, 1499, 7, 800])
    assert kept(index, 0)["first"].tolist() == index.tolist()
    assert torch.equal(kept(index, 0)["row"], index[:, None].float().expand(4, 5))


def test_values_that_are_large_do_not_wait_in_memory(context: Make) -> None:
    lengths = [2 + i % 5 for i in range(300)]
    split = Split([({"input": torch.zeros(length, 5)}, 0) for length in lengths], padded, lengths=lengths)
    ctx, widths = context(train=split), list[int]()

    def compute(inputs: Inputs) -> dict[str, Tensor]:
        widths.append(inputs["input"].shape[1])
        return {"logits": inputs["input"][:, 0]}

    fill(ctx.directory, ctx, compute, None, row_bytes=2**20)
    assert widths == [6, 6, 6]


@pytest.mark.parametrize("mass", [None, 0.999])
@pytest.mark.parametrize("long", [True, False])
def test_kept_logits_of_padded_batches_fit_the_trained_batch(context: Make, mass: float | None, long: bool) -> None:
    # All batches of the filling are of one length; batches that are trained on are shorter or longer.
    split = Split(Tokens(300), collate=padded)
    longest = max(range(300), key=lambda i: len(split[i][0]["input"]))
    ctx = context(train=split)
    live = live_teacher(linear(3, torch.randn(2, 4, 5)), ctx)
    live.cache(ctx, TeacherNeeds(mass=mass), None)
    index = torch.tensor([longest, 0] if long else [0, 7])
    batch, targets = padded([split[int(i)] for i in index])
    student = live(batch)["output"].clone()
    seen = live.answer(Batch(index, batch, targets), Progress(), student, inside=False)
    length = len(split[0][0]["input"])
    if mass is None:
        torch.testing.assert_close(seen.logits[1 if long else 0, :length], student[1 if long else 0, :length])
        return
    loss = float(sparse_soft_loss(student, seen.sparse, 1.0, mask=torch.ones(2, student.shape[1])))
    assert loss >= -1e-6  # a divergence is no less than zero, but for rounding


def sequences(count: int, length: int, classes: int, context: Make) -> tuple[Context, TorchModel]:
    """A context of (N, length, 5) inputs, and a teacher that gives (N, length, classes)."""
    values = torch.randn(count, length, 5, generator=torch.Generator().manual_seed(1))
    data = [(row, 0) for row in values]
    return context(train=Split(data)), linear(classes, values[:2], scale=3.0)  # type: ignore[arg-type]


def test_of_a_hundred_thousand_classes_the_largest_alone_are_on_disk_and_few_examples_in_memory(context: Make) -> None:
    ctx, model = sequences(40, 2, 100_000, context)
    live, seen = live_teacher(model, ctx), list[int]()
    live.module.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    live.cache(ctx, TeacherNeeds(mass=0.9, temperature=1.0), None)
    said = context.reports["teacher_logits"]
    k = said["classes_kept"]
    assert max(seen) <= AT_ONCE
    assert 1 <= k < 20_000
    assert said["classes"] == 100_000
    exact = [F.softmax(live({"input": ctx.train[i][0]["input"][None]})["output"], -1) for i in range(40)]
    mass = float(torch.cat(exact).sort(-1, descending=True).values[..., :k].sum(-1).mean())
    assert said["mean_mass_kept"] == pytest.approx(mass, abs=1e-4)
    assert 0.85 < mass < 0.95
    folder = Path(str(next(iter(live.cached.values.values())).flat.filename)).parent
    assert sum(path.stat().st_size for path in folder.glob("*.bin")) == 40 * 2 * (8 * k + 4)


@pytest.mark.parametrize("axis", [-1, 1])
def test_the_largest_classes_of_any_axis_give_the_loss_of_the_teachers_own(context: Make, axis: int) -> None:
    ctx, model = sequences(40, 6, 6, context)  # as many positions as classes: shapes alone would not tell
    if axis == 1:
        model = replace(model, module=nn.Sequential(model.module, Swap()))
    live = live_teacher(model, ctx)
    live.cache(ctx, TeacherNeeds(mass=1.0, temperature=2.0, axis=axis), None)
    batch = next(iter(ctx.train.loader(8, order=(0, 0))))
    seen = live.answer(batch, Progress(), torch.zeros(8, 6, 6), inside=False)
    student = torch.randn(8, 6, 6, generator=torch.Generator().manual_seed(2))
    assert seen.sparse is not None
    teacher = next(iter(live(batch.inputs).values()))
    expected = soft_loss(student, teacher, 2.0, axis=axis)
    torch.testing.assert_close(sparse_soft_loss(student, seen.sparse, 2.0, axis=axis), expected)


class Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_half_precision_would_change_the_loss_little_and_single_does_not(context: Make) -> None:
    ctx, model = sequences(64, 4, 5000, context)
    live = live_teacher(model, ctx)
    live.cache(ctx, TeacherNeeds(mass=0.999, temperature=1.0), None)
    sparse = Sparse(**live.cached(torch.arange(64), 0))
    assert sparse.values.dtype == torch.float32
    student = torch.randn(64, 4, 5000, generator=torch.Generator().manual_seed(2))
    exact = float(sparse_soft_loss(student, sparse, 1.0))
    half = float(sparse_soft_loss(student, sparse._replace(values=sparse.values.half().float()), 1.0))
    assert half == pytest.approx(exact, rel=1e-3)


def test_the_largest_classes_are_refused_where_the_disk_is_too_small(context: Make, monkeypatch: Patch) -> None:
    ctx, model = sequences(40, 2, 1000, context)
    monkeypatch.setattr(teacher.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(StageError, match=r"largest of 1,000 classes would take [0-9,]+ of 1,000 free bytes.*Lower"):
        live_teacher(model, ctx).cache(ctx, TeacherNeeds(mass=0.9), None)


def peak(folder: Path, examples: int) -> int:
    """Bytes that lookups take, in a file of `examples` times 100 numbers."""
    folder.mkdir()
    with (folder / "logits-0.bin").open("wb") as file:
        file.truncate(examples * 400)  # no blocks on the disk
    np.full((examples, 1), 100, dtype=np.int32).tofile(folder / "logits-0.shapes")
    (folder / "values.json").write_text(json.dumps({"types": {"logits": "float32"}, "views": 1}))
    kept = CachedValues(folder, examples)
    tracemalloc.start()
    for seed in range(30):
        found = kept(torch.randint(examples, (64,), generator=torch.Generator().manual_seed(seed)), 0)["logits"]
        assert found.shape == (64, 100)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest


def test_the_memory_of_lookups_does_not_grow_with_the_examples(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 2000), peak(tmp_path / "large", 200_000)
    assert large < 2 * small + 50_000
    assert large < 500_000  # of 80 MB


def test_filling_holds_a_batch_at_a_time(context: Make) -> None:
    ctx, _ = sequences(1000, 2, 3, context)
    alive: list[int] = []

    def compute(inputs: Inputs) -> dict[str, Tensor]:
        alive.append(len(inputs["input"]))
        return {"logits": torch.zeros(alive[-1], 2000)}

    tracemalloc.start()
    fill(ctx.directory, ctx, compute, None)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(alive) <= BATCH_SIZE
    assert highest < 4_000_000  # of 8 MB that are written
    assert (ctx.directory / "logits-0.bin").stat().st_size == 1000 * 2000 * 4


def places(record: Any) -> dict[str, str]:
    """What happened to each kept result of a run: made or reused."""
    events = journal.read(Path(record.folder) / "journal.jsonl")
    of_teacher = [e for e in events if e["event"] in ("made", "reused") and "teacher's logits" in e["place"]]
    return {event["place"]: event["event"] for event in of_teacher}


def weights(record: Any) -> bytes:
    return (Path(record.folder) / "stages" / "0-distill.logits" / "model" / "weights.safetensors").read_bytes()


def test_logits_of_data_that_are_other_ones_each_time_are_not_kept(project: Make, tmp_path: Path) -> None:
    chain = project()
    data = chain.with_name("data.py")
    noise = "class Noisy(TensorDataset):\n    def __getitem__(self, i):\n        x, y = super().__getitem__(i)\n"
    noise += "        return x + torch.rand(()), y\n\ndef task("
    text = data.read_text().replace("Split(quadrants(train, 0))", "Split(Noisy(*quadrants(train, 0).tensors))")
    data.write_text(text.replace("def task(", noise))
    config, source = load_config(chain)
    notes = build(config, source).notes
    assert sum("examples of train, calibration are other ones" in note for note in notes) == 1
    assert any("runs in every step: the task reads its training examples differently" in note for note in notes)
    assert places(run(chain, runs=tmp_path / "runs", track=False)) == {}


RECOVERING = chain_of(
    "prune.channels, macs: 0.5, round_to: 1, recovery: {epochs: 1}",
    model="use: models.py:TinyNet, width: 16",
    baseline="train.supervised, epochs: 2, learning_rate: 0.01",
)


def test_a_fill_that_died_is_not_used_and_a_whole_is_shared(project: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    chain, runs = project(), tmp_path / "runs"

    def go(*overrides: str, config: Path = chain, store: Path = runs) -> Any:
        return run(config, overrides=overrides, runs=store, track=False)

    append, calls = keeping._append, list[Path]()

    def die(path: Path, array: Any) -> None:
        append(path, array)
        calls.append(path)
        if len(calls) > 1:
            raise Interruption("stopped in the middle")

    monkeypatch.setattr(keeping, "_append", die)
    with pytest.raises(Interruption, match="in the middle"):
        go()
    monkeypatch.undo()
    first = go()
    assert list(places(first).values()) == ["made"]
    assert weights(first) == weights(go(store=tmp_path / "others"))
    other = go("stages.0.epochs=1")
    assert list(places(other).values()) == ["reused"]
    other = project(RECOVERING)
    assert list(places(go(config=other)).values()) == ["reused"]


def test_the_key_has_all_that_the_values_depend_on(tiny: Make, context: Make) -> None:
    def parts(views: int | None, wanted: TeacherNeeds, **changes: Any) -> dict[str, Any]:
        told: list[Any] = []

        def kept(what: str, model: Any, parts: dict[str, Any], make: Callable[[Path], None]) -> Path:
            told.append(parts)
            folder = ctx.directory / "kept"
            folder.mkdir()
            make(folder)
            return folder

        ctx = context(kept=kept, **changes)
        live_teacher(tiny(), ctx).cache(ctx, wanted, views)
        return dict(told[0])

    plain = parts(None, TeacherNeeds())
    assert plain == parts(None, TeacherNeeds(temperature=3.0), seed=5)  # neither matters to whole logits of one view
    split = context().train
    others = [
        parts(None, TeacherNeeds(), train=replace(split, fingerprint="2")),
        parts(2, TeacherNeeds(), augment=noisy),
        parts(2, TeacherNeeds(), augment=noisy, seed=5),
        parts(3, TeacherNeeds(), augment=noisy),
        parts(None, TeacherNeeds(mass=0.99)),
        parts(None, TeacherNeeds(mass=0.9)),
        parts(None, TeacherNeeds(mass=0.99, temperature=2.0)),
        parts(None, TeacherNeeds(mass=0.99, axis=1)),
    ]
    keys = [json.dumps(one, sort_keys=True) for one in [plain, *others]]
    assert len(set(keys)) == len(keys)


def test_logits_are_computed_in_the_precision_of_the_training(tiny: Make, context: Make) -> None:
    ctx, module = context(), tiny()
    exact, rough = (live_teacher(module, ctx, precision=name) for name in ("no", "bf16"))
    batch = next(iter(ctx.train.loader(48)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = module.module.eval()(batch.inputs["input"]).float()
    rough.cache(ctx, TeacherNeeds(), views=None)
    cached = rough.cached(torch.arange(len(ctx.train)), 0)["logits"]
    assert cached.dtype == torch.float32
    torch.testing.assert_close(cached[batch.index], expected, atol=1e-2, rtol=1e-2)
    assert not torch.equal(cached[batch.index], exact(batch.inputs)["output"])


def test_a_teacher_whose_layers_are_read_is_exact_whatever_the_precision(tiny: Make, context: Make) -> None:
    ctx = context()
    exact, rough = (live_teacher(tiny(), ctx, precision=name) for name in ("no", "bf16"))
    batch, progress = next(iter(ctx.train.loader(48))), Progress()
    seen = [m.answer(batch, progress, torch.zeros(48, 4), inside=True).outputs["output"] for m in (exact, rough)]
    torch.testing.assert_close(*seen, atol=0, rtol=0)


def test_a_stage_asks_its_teacher_in_its_own_precision(tiny: Make, context: Make) -> None:
    ctx, asked = context(), list[Any]()

    def noting(what: str, model: Any, parts: Any, make: Any) -> Path:
        asked.append(parts["precision"])
        return ctx.kept(what, model, parts, make)

    for precision in ("fp32", "bf16"):
        stage = LogitDistillation(student=Student(use="teacher"), teacher="incoming", epochs=1, precision=precision)
        stage.run(tiny(), replace(ctx, kept=noting))
    assert asked == ["no", "bf16"]
