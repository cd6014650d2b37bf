"""The tasks that ship with the configs: disjoint, solvable by what they are for alone, and deployable."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from pipeline.base.batches import Inputs, Outputs
from pipeline.base.use import Reference, find
from pipeline.build.probe import example_inputs, probe
from pipeline.build.trial import try_out
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.model import Model, TorchModel, call
from pipeline.task import Split, Task
from pipeline.tasks import digits

CONFIGS = Path(__file__).parents[1] / "configs"
TEXT, TRANSLATION = CONFIGS / "text", CONFIGS / "translation"
SMALL: dict[str, Any] = {"train": 300, "validation": 40, "test": 60}
NARROW = {"hidden": 32, "layers": 2, "heads": 2, "feed_forward": 64}

text: Any = find("data.py", TEXT)
translation: Any = find("data.py", TRANSLATION)


def built(folder: Path, name: str, task: Task, **arguments: Any) -> TorchModel:
    torch.manual_seed(0)
    builder = Reference(use=f"models.py:{name}", arguments={**NARROW, **arguments}, folder=folder)
    return TorchModel.build(builder, example_inputs(task.train))


def encoder(task: Task, **arguments: Any) -> TorchModel:
    return built(TEXT, "encoder", task, **arguments)


def translator(task: Task, **arguments: Any) -> TorchModel:
    return built(TRANSLATION, "translator", task, **arguments)


def everything(split: Split) -> tuple[Inputs, Tensor]:
    batch = next(iter(split.loader(len(split))))
    return batch.inputs, batch.targets


def decisions(task: Task, model: Model, inputs: Inputs) -> Tensor:
    found = task.decode(model.predict, inputs)
    return found.argmax(-1) if task.logits else found


def fitted(model: TorchModel, task: Task, steps: int, rate: float = 3e-3) -> TorchModel:
    inputs, targets = everything(task.train)
    optimizer = torch.optim.AdamW(model.module.parameters(), lr=rate)
    model.module.train()
    for step in range(steps):
        rows = torch.randperm(len(targets), generator=torch.Generator().manual_seed(step))[:64]
        loss = task.loss(call(model.module, {name: value[rows] for name, value in inputs.items()}), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.module.eval()
    return model


@pytest.mark.parametrize("data", [text, translation], ids=["text", "translation"])
def test_no_example_occurs_twice_and_the_test_split_does_not_move(data: Any) -> None:
    seen = probe(data.task())
    whole = [digest for name in ("train", "validation", "test") for digest in seen[name].hashes]
    assert len(set(whole)) == len(whole)
    again, other, more = (probe(data.task(**options)) for options in ({}, {"seed": 1}, {"train": 5000}))
    assert {name: sight.digest for name, sight in again.items()} == {name: s.digest for name, s in seen.items()}
    assert more["test"].digest == seen["test"].digest
    assert len(more["train"].hashes) == 5000
    assert not set(other["test"].hashes[:20]) <= set(seen["test"].hashes)


@pytest.mark.parametrize(("folder", "make"), [(TEXT, encoder), (TRANSLATION, translator)], ids=["text", "translation"])
def test_model_and_task_fit_and_the_exported_file_agrees(folder: Path, make: Any, tmp_path: Path) -> None:
    task = find("data.py", folder).task(**SMALL)
    model = make(task)
    try_out(task, model, probe(task))
    assert list(model.predict(model.example)) == ["logits"]
    exported = deploy(model, tmp_path / "model.onnx")
    inputs, _ = everything(task.test)
    ours, theirs = exported.predict(inputs), model.predict(inputs)
    assert list(ours) == ["logits"]
    torch.testing.assert_close(ours["logits"], theirs["logits"], atol=1e-4, rtol=1e-4)
    assert torch.equal(*[decisions(task, form, inputs) for form in (exported, model)])
    model.save(tmp_path / "saved")
    loaded = TorchModel.load(tmp_path / "saved", folder)
    assert torch.equal(loaded.predict(inputs)["logits"], model.predict(inputs)["logits"])


SENTENCES = {
    "the plot was good": "good",
    "the plot was very good": "very good",
    "the plot was rather awful": "bad",
    "i think that the plot was truly awful at home": "very bad",
    "the plot was not very good": "bad",
    "the plot was not awful": "good",
    "nobody thinks that the plot was good": "bad",
    "i doubt that the plot was not good": "good",
    "i doubt that the plot was not very bad": "bad",
    "the cast was very good but the plot was not good": "bad",
    "although the cast was bad the plot was truly warm": "very good",
    "the plot was very dull although nobody thinks that the cast was bad": "very bad",
}


def by_hand(sentence: str) -> str:
    """The rule on the words themselves, apart from the grammar."""
    words = sentence.split()
    if "but" in words:
        words = words[words.index("but") + 1 :]
    elif words[0] == "although":  # the second clause begins after the first one's adjective and what follows it
        position = next(i for i, word in enumerate(words) if word in text.GOOD + text.BAD) + 1
        words = words[position + 2 :] if tuple(words[position : position + 2]) in text.ASIDE else words[position:]
    elif "although" in words:
        words = words[: words.index("although")]
    good = any(word in text.GOOD for word in words)
    turns = words.count("not") + words.count("doubt") + words.count("nobody")
    strong = bool({"very", "truly"} & set(words)) and not turns
    return ("very " if strong else "") + ("good" if good == (turns % 2 == 0) else "bad")


@pytest.mark.parametrize(("sentence", "grade"), SENTENCES.items())
def test_the_rule_by_hand_grades_known_sentences(sentence: str, grade: str) -> None:
    assert by_hand(sentence) == grade


def as_words(split: Split) -> tuple[list[str], list[str]]:
    words = {i: word for word, i in text.VOCABULARY.items()}
    inputs, targets = everything(split)
    rows = zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True)
    sentences = [" ".join(words[i] for i, there in zip(ids, mask, strict=True) if there) for ids, mask in rows]
    return [s.removeprefix("<start> ") for s in sentences], [text.GRADES[grade] for grade in targets.tolist()]


def test_grades_follow_the_rule_and_all_occur() -> None:
    sentences, grades = as_words(text.task().train)
    assert [by_hand(sentence) for sentence in sentences] == grades
    assert all(grades.count(grade) > 0.05 * len(grades) for grade in text.GRADES)


def test_a_bag_of_words_does_not_solve_the_text_task() -> None:
    task = text.task(train=4000)
    (sentences, grades), (asked, answers) = as_words(task.train), as_words(task.test)
    bag = CountVectorizer(token_pattern=r"\S+").fit(sentences)
    found = LogisticRegression(max_iter=1000).fit(bag.transform(sentences), grades)
    assert found.score(bag.transform(asked), answers) < 0.65


def test_the_length_is_fixed_and_a_short_one_refused() -> None:
    task = text.task(**SMALL, length=30)
    assert {name: tuple(value.shape) for name, value in everything(task.test)[0].items()} == {
        "input_ids": (60, 30),
        "attention_mask": (60, 30),
    }
    with pytest.raises(ConfigError, match=r"length is 23.*at least 24"):
        text.task(length=23)


def test_padding_does_not_change_the_encoders_answer() -> None:
    shorter, longer = (text.task(**SMALL, length=length) for length in (24, 40))
    model = encoder(shorter)
    short, long = (model.predict(everything(task.test)[0])["logits"] for task in (shorter, longer))
    torch.testing.assert_close(short, long, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("number", "words"), [
    (13, "thirteen"),
    (20, "twenty"),
    (1000, "one thousand"),
    (4813, "four thousand eight hundred thirteen"),
    (20_045, "twenty thousand forty five"),
    (100_101, "one hundred thousand one hundred one"),
    (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
])  # fmt: skip
def test_numbers_in_words(number: int, words: str) -> None:
    assert " ".join(translation.in_words(number)) == words


def test_words_say_the_number_that_the_digits_are() -> None:
    inputs, targets = everything(translation.task().train)
    names = {i: word for word, i in translation.VOCABULARY.items()}
    for ids, labels in zip(inputs["input_ids"].tolist(), targets.tolist(), strict=True):
        number = "".join(names[i] for i in ids if names[i].isdigit())
        assert read([names[i] for i in labels if i > translation.END]) == int(number)


def read(words: list[str]) -> int:
    """The number that words say, read from left to right."""
    total = part = 0
    for word in words:
        if word == "thousand":
            total, part = part * 1000, 0
        elif word == "hundred":
            part *= 100
        else:
            known = word in translation.UNITS
            part += translation.UNITS.index(word) if known else 10 * (translation.TENS.index(word) + 2)
    return total + part


def test_more_numbers_than_there_are_of_each_length_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"20600 numbers.*at most 15000"):
        translation.task(train=20_000)


def generated(model: TorchModel, inputs: Inputs, **options: Any) -> Tensor:
    """What the library's own generation gives, without the start, padded to the decoder's length."""
    length = inputs["decoder_input_ids"].shape[1]
    source = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    ids = model.module.generate(**source, max_new_tokens=length, **{"num_beams": 1, **options})[:, 1:]  # type: ignore[operator]
    return F.pad(ids, (0, length - ids.shape[1]), value=translation.PAD)


@pytest.mark.parametrize("steps", [0, 120], ids=["untrained", "trained"])
def test_decoding_is_the_librarys_greedy_generation(steps: int) -> None:
    task = translation.task(**SMALL)
    model = fitted(translator(task, dropout=0.0), task, steps)
    inputs, _ = everything(task.test)
    decoded = task.decode(model.predict, inputs)
    assert decoded.shape == inputs["decoder_input_ids"].shape
    assert torch.equal(decoded, generated(model, inputs))
    if steps:  # several lengths, or the case would be the other one's
        assert len(set((decoded != translation.PAD).sum(1).tolist())) > 1
    blind = {**inputs, "decoder_input_ids": torch.full_like(inputs["decoder_input_ids"], translation.END)}
    assert torch.equal(task.decode(model.predict, blind), decoded)


def test_beams_are_searched_and_a_trained_model_prefers_its_own() -> None:
    task = translation.task(**SMALL)
    model = fitted(translator(task, dropout=0.0), task, 120)
    inputs, _ = everything(task.test)
    ids = generated(model, inputs, num_beams=4)
    assert not torch.equal(ids, generated(model, inputs))
    assert (ids == translation.END).any(1).float().mean() > 0.9


def test_a_perfect_model_decodes_to_the_reference_and_scores_one() -> None:
    task = translation.task(**SMALL)
    inputs, targets = everything(task.test)

    def oracle(given: Inputs) -> Outputs:
        return {"logits": F.one_hot(targets.clamp(min=0), len(translation.VOCABULARY)).float()}

    predictions = task.decode(oracle, inputs)
    assert torch.equal(task.score(predictions, targets), torch.ones(60))
    shorter = int((targets[:, -1] == -100).nonzero()[1])
    predictions[0, 0] += 1
    predictions[shorter, -1] = translation.END
    assert task.score(predictions, targets).nonzero().flatten().tolist() == sorted({*range(60)} - {0, shorter})


def test_the_loss_is_the_mean_over_the_tokens_that_count() -> None:
    task = translation.task(**SMALL)
    _, targets = everything(task.test)
    logits = torch.randn(60, 10, len(translation.VOCABULARY), dtype=torch.float64)
    probabilities = logits.softmax(-1)
    terms = [
        -probabilities[n, t, int(targets[n, t])].log() for n in range(60) for t in range(10) if int(targets[n, t]) >= 0
    ]
    torch.testing.assert_close(task.loss({"logits": logits}, targets), torch.stack(terms).mean())
    changed = torch.where((targets < 0)[..., None], torch.randn_like(logits), logits)
    assert torch.equal(task.loss({"logits": changed}, targets), task.loss({"logits": logits}, targets))


def test_as_target_makes_the_datasets_own_example_of_its_reference() -> None:
    task = translation.task(**SMALL)
    for i in range(60):
        inputs, labels = task.test[i]
        words = labels[labels >= 0]
        bare = {**inputs, "decoder_input_ids": torch.zeros_like(inputs["decoder_input_ids"])}
        padded = F.pad(words, (0, 10 - len(words)), value=translation.PAD)
        for ids in (words, padded, F.pad(padded, (1, 0), value=translation.START)):
            made, target = translation.as_target(bare, ids)
            assert made.keys() == inputs.keys()
            assert all(torch.equal(made[name], inputs[name]) for name in inputs)
            assert torch.equal(target, labels)
        assert torch.equal(inputs["decoder_input_ids"][1:][labels[1:] >= 0], words[:-1])
        assert inputs["decoder_input_ids"][0] == translation.START


def test_as_target_takes_a_sequence_without_an_end_and_refuses_what_does_not_fit() -> None:
    inputs, _ = translation.task(**SMALL).test[0]
    made, target = translation.as_target(inputs, torch.full((10,), 20))
    assert target.tolist() == [20] * 10
    assert made["decoder_input_ids"].tolist() == [translation.START, *[20] * 9]
    with pytest.raises(StageError, match=r"a sequence of 11 tokens.*1 to 10"):
        translation.as_target(inputs, torch.full((11,), 20))
    with pytest.raises(StageError, match="a sequence of 0 tokens"):
        translation.as_target(inputs, torch.tensor([translation.START]))


def test_digits_are_augmented_on_demand_alone() -> None:
    assert digits.task().augment is None
    task = digits.task(augment=True)
    plain, moved = (next(iter(task.train.loader(8, order=(0, 0), augment=a))) for a in (None, task.augment))
    assert torch.equal(plain.index, moved.index)
    assert plain.inputs["input"].shape == moved.inputs["input"].shape
    assert not torch.equal(plain.inputs["input"], moved.inputs["input"])


def test_a_view_of_a_digit_is_the_image_moved_by_a_pixel_at_most_and_scaled() -> None:
    image = torch.zeros(1, 8, 8)
    image[0, 3, 4] = 0.5
    before = torch.get_rng_state()
    places, values = set(), set()
    for epoch in range(200):
        view = digits.varied({"input": image}, 7, epoch)["input"]
        assert torch.equal(view, digits.varied({"input": image}, 7, epoch)["input"])
        ((_, row, column),) = view.nonzero().tolist()
        places.add((row - 3, column - 4))
        values.add(round(float(view.max()), 6))
    assert places == {(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    assert 0.45 <= min(values) < 0.46
    assert 0.54 < max(values) <= 0.55
    assert torch.equal(torch.get_rng_state(), before)
    assert float(image.sum()) == 0.5


def test_views_differ_between_examples_and_stay_in_range() -> None:
    views = torch.stack([digits.varied({"input": torch.ones(1, 8, 8)}, seed, 0)["input"] for seed in range(50)])
    assert len({tuple(view.flatten().tolist()) for view in views}) > 25
    assert float(views.min()) >= 0
    assert float(views.max()) == 1
