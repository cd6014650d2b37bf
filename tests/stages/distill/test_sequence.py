"""Distillation of sequences: what is generated, which of it is chosen, and that the student follows it."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.base.batches import Inputs
from pipeline.base.use import Reference, find
from pipeline.build.probe import example_inputs
from pipeline.context import Context, Preview
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, Interruption, Note, StageError
from pipeline.model import TorchModel
from pipeline.task import Split, Task
from stages.distill.logits import LogitDistillation
from stages.distill.sequence import SequenceDistillation
from stages.kd import generation
from stages.kd.cache import CachedValues, fill
from stages.kd.generation import NOTHING, Beams, Rule, choose, cut, generated, read, split_of
from stages.kd.stage import Distilling
from stages.kd.student import Student
from stages.kd.teacher import Teacher
from stages.train.supervised import SupervisedTraining
from tests.aliases import Make, Patch
from tests.contexts import preview_of, refused
from tests.trained import live_teacher

FOLDER = Path(__file__).parents[3] / "configs" / "translation"
NARROW = {"hidden": 32, "layers": 1, "heads": 2, "feed_forward": 32, "dropout": 0.0}
words: Any = find("data.py", FOLDER)

ALWAYS = """
import torch

def always(module, inputs, beams, max_tokens, word=20):
    tokens = torch.full((len(inputs["input_ids"]), beams, 3), word)
    tokens[:, :, 1:] += 1
    tokens[:, :, 2] = 2
    return tokens

def real(module, inputs, beams, max_tokens):
    return torch.rand(len(inputs["input_ids"]), 4)
"""


@pytest.fixture(scope="module")
def task() -> Task:
    return words.task(train=48, validation=8, test=8)  # type: ignore[no-any-return]


def translator(task: Task, seed: int = 0, **arguments: Any) -> TorchModel:
    torch.manual_seed(seed)
    builder = Reference(use="models.py:translator", arguments={**NARROW, **arguments}, folder=FOLDER)
    return TorchModel.build(builder, example_inputs(task.train))


@pytest.fixture
def ctx(task: Task, context: Make) -> Callable[..., Context]:
    """ctx(**changes): a context on the translations."""
    return lambda **changes: context(task=task, **changes)


@pytest.fixture
def always(tmp_path: Path) -> Callable[..., Reference]:
    (tmp_path / "always.py").write_text(ALWAYS)
    return lambda name="always", **arguments: Reference(use=f"always.py:{name}", arguments=arguments, folder=tmp_path)


def stage(**settings: Any) -> SequenceDistillation:
    student = Student(use="models.py:translator", arguments=NARROW, folder=FOLDER)
    common: Any = {"student": student, "epochs": 1, "batch_size": 16, "learning_rate": 0.01}
    return SequenceDistillation(**{**common, **settings})


def everything(split: Split) -> Inputs:
    return next(iter(split.loader(len(split)))).inputs


def test_a_beam_of_one_is_the_tasks_own_greedy_decoding(task: Task, ctx: Make) -> None:
    model = translator(task)
    folder = generated(live_teacher(model, ctx()), Beams(1, at_once=7), ctx())
    found = read(CachedValues(folder, 48), torch.arange(48))
    assert found.dtype == torch.int32
    expected = task.decode(model.predict, everything(task.train))
    assert torch.equal(found[:, 0].masked_fill(found[:, 0] == NOTHING, words.PAD).long(), expected)


def test_beams_are_likelier_than_greedy_and_come_in_order(task: Task, ctx: Make) -> None:
    model = translator(task)
    inputs = everything(task.train)
    found = generation.beam_search(model.module, inputs, 4, None)
    assert found.shape[:2] == (48, 4)

    def likelihood(tokens: Tensor) -> Tensor:
        """Mean log-probability a token, as the search ranks."""
        there = tokens != NOTHING
        ids = tokens.masked_fill(~there, words.PAD)
        decoder = F.pad(ids[:, :-1], (1, 0), value=words.START)
        log_p = model.predict({**inputs, "decoder_input_ids": decoder})["logits"].log_softmax(-1)
        each = log_p.gather(2, ids[..., None])[..., 0] * there
        return each.sum(1) / (there.sum(1) + 1)  # and the start

    ranks = torch.stack([likelihood(found[:, i]) for i in range(4)], 1)
    assert bool((ranks[:, :-1] >= ranks[:, 1:] - 1e-4).all())
    greedy = generation.beam_search(model.module, inputs, 1, None)[:, 0]
    assert likelihood(found[:, 0]).mean() > likelihood(greedy).mean()


def test_max_tokens_is_the_longest_sequence(task: Task, ctx: Make) -> None:
    assert generation.beam_search(translator(task).module, everything(task.train), 2, 3).shape == (48, 2, 3)


@pytest.mark.parametrize(("end", "expected"), [(2, [5, 2, -1, -1]), ([7, 2], [5, 2, -1, -1]), (None, [5, 2, 7, 2])])
def test_nothing_stands_after_the_first_end(end: Any, expected: list[int]) -> None:
    assert cut(torch.tensor([[[5, 2, 7, 2]]]), end)[0, 0].tolist() == expected


def test_choices_share_a_generation_and_other_beams_do_not(task: Task, ctx: Make, always: Make, tmp_path: Path) -> None:
    keys: list[str] = []

    def kept(what: str, model: Any, parts: dict[str, Any], make: Callable[[Path], None]) -> Path:
        keys.append(f"{what} {sorted(parts.items(), key=str)}")
        folder = tmp_path / "kept" / str(keys.index(keys[-1]))
        if not folder.exists():
            folder.mkdir(parents=True)
            make(folder)
        return folder

    def go(**settings: Any) -> None:
        stage(**{"generate": always(), "pad": 0, **settings}).run(translator(task), ctx(kept=kept))

    go()
    for settings in ({"select": "score"}, {"min_score": 0.0}, {"seeds": 2}, {"at_once": 5}):
        go(**settings)
    assert len(set(keys)) == 1
    go(beams=2)
    go(generate=always(word=21))
    go(max_tokens=5)
    assert len(set(keys)) == 4
    (tmp_path / "always.py").write_text(ALWAYS.replace("+= 1", "+= 2"))
    go()
    assert len(set(keys)) == 5


@dataclass(frozen=True)
class Three:
    """Three examples with targets 10, 20, 30, and candidates for each of them."""

    ctx: Context
    folder: Path

    def choose(self, **rule: Any) -> Any:
        return choose(self.folder, self.ctx, Rule(**rule))


@pytest.fixture
def three(ctx: Make) -> Three:
    data = [({"x": torch.tensor([float(i)])}, torch.tensor([10 * i, -100])) for i in (1, 2, 3)]
    candidates = torch.tensor([
        [[11, 2, -1], [10, 2, -1], [10, 2, -1]],  # the second and third are right
        [[20, -1, -1], [20, 5, 2], [9, -1, -1]],  # the first and second are
        [[5, 5, 2], [6, 2, -1], [7, 2, -1]],  # none is
    ])  # fmt: skip

    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        assert predictions.shape[1] >= targets.shape[1]
        assert not (predictions == NOTHING).any()
        return (predictions[:, 0] == targets[:, 0]).float()

    def as_target(inputs: Inputs, tokens: Tensor) -> tuple[Inputs, Tensor]:
        return inputs, F.pad(tokens, (0, 4 - len(tokens)), value=-100)

    made: Context = ctx(train=Split(data), score=score, as_target=as_target)  # type: ignore[arg-type]
    fill(made.directory, made, lambda inputs: {"tokens": candidates[inputs["x"][:, 0].long() - 1].int() + 1}, None)
    return Three(made, made.directory)


def targets(three: Three, choice: Any) -> list[list[int]]:
    assert three.ctx.as_target is not None
    split = split_of(three.folder, choice, three.ctx, three.ctx.as_target)
    assert split.fingerprint == choice.fingerprint
    return [split[i][1].tolist() for i in range(len(split))]


def test_the_likeliest_sequence_is_taken_whatever_it_scores(three: Three) -> None:
    choice = three.choose()
    assert targets(three, choice) == [[11, 2, -100, -100], [20, -100, -100, -100], [5, 5, 2, -100]]
    report = {"examples": 3, "kept": 3, "mean_score": 1 / 3, "mean_score_of_likeliest": 1 / 3, "mean_tokens": 2.0}
    assert choice.report == pytest.approx(report)


def test_the_best_by_score_is_the_likeliest_of_those_that_are_best(three: Three) -> None:
    choice = three.choose(select="score")
    assert (choice.beams.tolist(), choice.report["mean_score"]) == ([1, 0, 0], pytest.approx(2 / 3))
    assert choice.report["mean_score_of_likeliest"] == pytest.approx(1 / 3)


def test_what_scores_too_little_is_dropped_or_keeps_its_reference(three: Three) -> None:
    dropped = three.choose(select="score", min_score=0.5)
    assert targets(three, dropped) == [[10, 2, -100, -100], [20, -100, -100, -100]]
    assert (dropped.report["examples"], dropped.report["kept"]) == (3, 2)
    kept = three.choose(select="score", min_score=0.5, rejected="reference")
    assert targets(three, kept) == [[10, 2, -100, -100], [20, -100, -100, -100], [30, -100]]
    assert kept.report == dropped.report
    prints = [three.choose(**rule).fingerprint for rule in ({}, {"select": "score"}, {"select": "score"})]
    assert prints[0] != prints[1] == prints[2]
    assert len({dropped.fingerprint, kept.fingerprint, *prints}) == 4
    with pytest.raises(StageError, match=r"no sequences of the teacher that score 2\.0; their mean is 0\.3333.*Lower"):
        three.choose(min_score=2.0)


def test_generated_examples_go_to_a_loaders_process_without_the_file(three: Three) -> None:
    assert three.ctx.as_target is not None
    split = split_of(three.folder, three.choose(), three.ctx, operator)
    before = split[1][1].tolist()
    again = pickle.loads(pickle.dumps(split))  # noqa: S301  # our own
    assert again[1][1].tolist() == before == [20]


def operator(inputs: Inputs, tokens: Tensor) -> tuple[Inputs, Tensor]:
    return inputs, tokens


def test_a_score_that_takes_no_tokens_is_blamed(three: Three) -> None:
    task = replace(three.ctx.task, score=lambda predictions, targets: torch.zeros(()))
    bad = replace(three, ctx=replace(three.ctx, task=task))
    with pytest.raises(StageError, match=r"score of generated tokens is a tensor of shape \(\); expected .*\(3,\)"):
        bad.choose()


def decoded(model: TorchModel, task: Task) -> Tensor:
    return task.decode(model.predict, everything(task.validation))


def like_always(predictions: Tensor, targets: Tensor) -> Tensor:
    """Share of the words that the function says; the references would choose the epoch in which they are likeliest."""
    return (predictions[:, :3] == torch.tensor([20, 21, 2])).float().mean(1)


def test_a_student_follows_the_teacher_a_control_the_labels(task: Task, ctx: Make, always: Make, context: Make) -> None:
    compared: dict[str, TorchModel] = {}
    teacher, made = translator(task, seed=3), stage(generate=always(), control=True, epochs=8)
    student = made.run(teacher, ctx(compare=compared.__setitem__, score=like_always))
    assert decoded(student, task)[:, :4].tolist() == [[20, 21, 2, 0]] * 8
    torch.manual_seed(0)
    fresh = made.student.build(teacher, teacher.example)
    alone = SupervisedTraining(epochs=8, batch_size=16, learning_rate=0.01).run(fresh, ctx(score=like_always))
    ours, theirs = (m.predict(teacher.example)["logits"] for m in (compared["control"], alone))
    assert torch.equal(ours, theirs)
    report = context.reports["sequences"]
    assert (report["examples"], report["kept"], report["mean_score"], report["mean_tokens"]) == (48, 48, 1.0, 3.0)


def test_words_are_learnt_on_the_generated_sequences(task: Task, ctx: Make, always: Make, monkeypatch: Patch) -> None:
    seen: list[Teacher] = []
    train_student = SequenceDistillation.train_student
    monkeypatch.setattr(
        SequenceDistillation,
        "train_student",
        lambda self, s, teachers, *rest: (seen.extend(teachers), train_student(self, s, teachers, *rest))[1],
    )
    fitted = stage(generate=always(), epochs=8).run(translator(task), ctx(score=like_always))  # it says just that
    made = stage(generate=always(), word_weight=1.0, epochs=8, temperature=1.0, mass=0.9999)
    no_labels = {"loss": lambda outputs, targets: pytest.fail("the labels were read")}
    assert decoded(made.run(fitted, ctx(score=like_always, **no_labels)), task)[:, :4].tolist() == [[20, 21, 2, 0]] * 8
    assert all(teacher.cached is None for teacher in seen)  # of other sequences than the task's own
    assert len(made.terms_of()) == 1
    assert [term.weight for term in stage(word_weight=0.25).terms_of()] == pytest.approx([0.75, 0.25])


def test_where_examples_are_dropped_the_training_has_as_many_steps(task: Task, ctx: Make, context: Make) -> None:
    half = range(0, 48, 2)
    numbers = {tuple(task.train[i][1].tolist()) for i in half}

    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor([float(tuple(row.tolist()) in numbers) for row in targets])

    stage(min_score=0.5, epochs=2, batch_size=8).run(translator(task), ctx(score=score))
    assert context.reports["sequences"]["kept"] == 24
    assert len(context.reports["training"]) == 4  # epochs of half as many examples


READER = """
import torch
from torch import Tensor, nn
from torch.nn import functional as F

class Reader(nn.Module):
    "Autoregressive: (N, T) ids -> the next id's logits (N, T, words)."

    def __init__(self, words: int = 12) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(words, 16), nn.Linear(16, words)
        self.cell = nn.GRU(16, 16, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.cell(self.embed(ids))[0])


class Plain(nn.Module):
    "Gives logits of the translator's shape, and nothing else."

    def forward(self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor) -> Tensor:
        return F.one_hot(decoder_input_ids, 43).float()


PROMPT = 2

def continued(module, inputs, beams, max_tokens):
    ids = inputs["ids"][:, :PROMPT]
    for _ in range(3):
        ids = torch.cat([ids, module(ids)[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, PROMPT:]

def as_target(inputs, tokens):
    whole = torch.cat([inputs["ids"][:PROMPT], tokens])
    return {"ids": whole[:-1]}, torch.cat([torch.full((PROMPT - 1,), -100), tokens])
"""


def test_an_autoregressive_model_continues_its_prompt(ctx: Make, tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(READER)
    data = [(torch.tensor([i % 5, i % 7, 1, 1]), torch.tensor([-100, 1, 1, 1])) for i in range(70)]
    split = Split([({"ids": x}, y) for x, y in data])

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs["output"].flatten(0, 1), targets.flatten(), ignore_index=-100)

    def score(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions[..., -3:] == targets[:, 1:]).float().mean(1)

    def decode(forward: Any, inputs: Inputs) -> Any:
        return forward(inputs)["output"].argmax(-1)

    torch.manual_seed(0)
    builder = Reference(use="reader.py:Reader", folder=tmp_path)
    teacher = TorchModel.build(builder, {"ids": torch.stack([x for x, _ in data[:2]])})
    for parameter in teacher.module.parameters():
        parameter.data *= 3  # so that it says different things
    reader = find("reader.py", tmp_path)
    said = reader.continued(teacher.module, {"ids": torch.stack([x for x, _ in data])}, 1, None)
    asked = [reader.as_target({"ids": x}, tokens) for (x, _), tokens in zip(data, said, strict=True)]
    generate = Reference(use="reader.py:continued", folder=tmp_path)
    how: Any = {"pad": 0, "epochs": 40, "batch_size": 14, "learning_rate": 0.02}
    changes = {"train": split, "validation": Split(asked), "loss": loss, "score": score, "decode": decode}
    made = SequenceDistillation(student=Student(use="teacher"), generate=generate, **how)
    student = made.run(teacher, ctx(**changes, as_target=reader.as_target))
    follows = reader.continued(student.module, {"ids": torch.stack([x for x, _ in data])}, 1, None)
    assert len(set(map(tuple, said.tolist()))) > 3
    assert (follows == said).float().mean() > 0.9


def preview(model: Any, **changes: Any) -> Preview:
    return preview_of(model, 48, **{"logits": False, **changes})


def test_the_plan_says_that_the_teacher_generates_once(task: Task) -> None:
    said = [text for text in stage().check((), preview(translator(task))) if isinstance(text, Note)]
    assert said == ["the teacher generates once for each of 48 examples, with beams of width 4"]
    both = [text for text in stage(word_weight=0.5).check((), preview(translator(task))) if isinstance(text, Note)]
    assert "runs once an example" in both[1]


def test_teachers_that_cannot_generate_are_refused_before_work(task: Task, always: Make, tmp_path: Path) -> None:
    model = translator(task)
    (tmp_path / "reader.py").write_text(READER)
    plain = TorchModel.build(Reference(use="reader.py:Plain", folder=tmp_path), model.example)
    with pytest.raises(ConfigError, match=r"the teacher, Plain, has no `generate`.*Give `generate: file\.py:function`"):
        list(stage().check((), preview(plain)))
    refused(r"pad: the teacher has no pad token", stage(generate=always()).check((), preview(plain)))
    list(stage(generate=always(), pad=0).check((), preview(plain)))
    with pytest.raises(ConfigError, match=r"always\.py:none"):
        list(stage(generate=Reference(use="always.py:none", folder=tmp_path), pad=0).check((), preview(plain)))
    refused("an ONNX file, which cannot generate", stage().check((), preview(deploy(model, tmp_path / "teacher.onnx"))))
    decoder = translator(task)
    decoder.module.config.is_encoder_decoder = False  # type: ignore[union-attr]
    refused("no encoder-decoder: where in its inputs the prompt ends", stage().check((), preview(decoder)))


def test_a_task_without_as_target_is_refused(task: Task, ctx: Make) -> None:
    with pytest.raises(ConfigError, match=r"the task has no `as_target`.*Give the task `as_target`"):
        list(stage().check((), preview(translator(task), as_target=None)))
    with pytest.raises(StageError, match=r"the task has no `as_target`.*Give the task `as_target`"):
        stage().run(translator(task), ctx(as_target=None))


def test_what_generates_something_else_is_blamed(task: Task, ctx: Make, always: Make) -> None:
    message = r"generate \(always\.py:real\): it gave a tensor of shape \(32, 4\); expected"
    with pytest.raises(StageError, match=message):
        stage(generate=always("real")).run(translator(task), ctx())


def test_a_stop_while_it_generates_keeps_nothing(task: Task, ctx: Make) -> None:
    asked = iter([False, False, True])
    live = live_teacher(translator(task), ctx())
    with pytest.raises(Interruption, match="stopped while the teacher generated"):
        generated(live, Beams(2, at_once=8), ctx(interrupted=lambda: next(asked)))


@pytest.mark.parametrize(("settings", "message"), [
    ({"temperature": 4.0}, "`temperature` is of no use without `word_weight`"),
    ({"mass": 0.9}, "`mass` is of no use without `word_weight`"),
    ({"teachers": ("incoming", "baseline")}, "several teachers are of no use without `word_weight`"),
    ({"select": "score", "beams": 1}, "chooses among several `beams`"),
    ({"rejected": "reference"}, "`rejected` needs `min_score`"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        stage(**settings)


def test_word_level_alone_is_distillation_of_logits_without_the_padding(task: Task, ctx: Make, context: Make) -> None:
    student = Student(use="models.py:translator", arguments=NARROW, folder=FOLDER)
    made = LogitDistillation(student=student, ignore=-100, hard_weight=0, epochs=6, batch_size=16, learning_rate=0.01)
    assert isinstance(made, Distilling)
    teacher = translator(task)
    assert len(list(made.check((), preview(teacher)))) == 1
    made.run(teacher, ctx())
    rows = [row["loss"] for row in context.reports["training"]]
    assert rows[-1] < 0.6 * rows[0]
    regression = TorchModel(nn.Linear(4, 3), {"input": torch.randn(2, 4)}, Reference(use="torch.nn:Linear"))
    same = LogitDistillation(student=Student(use="torch.nn:Linear", arguments={"in_features": 4, "out_features": 3}))
    with pytest.raises(ConfigError, match=r"the task's predictions are no logits; expected Task\(logits=True\), or"):
        list(same.check((), preview(regression)))
