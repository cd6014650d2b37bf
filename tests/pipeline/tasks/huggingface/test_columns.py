"""Columns and kinds by their types: found where there is one choice, asked for where there are several."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Features, Translation, Value

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.columns import Columns, find, guess, types_of, unfolded
from pipeline.tasks.huggingface.huggingface import task
from pipeline.tasks.huggingface.settings import Settings
from tests import sets

ONE: dict[str, Any] = {"idx": "integer", "text": "text", "label": "class"}
TWO: dict[str, Any] = {"sentence1": "text", "sentence2": "text", "idx": "integer"}


def asked(**arguments: Any) -> Settings:
    return Settings(data="set", **arguments)


@pytest.mark.parametrize(("types", "kind", "columns"), [
    (ONE, "text_classification", Columns(("text",), "label")),
    ({"text": "text", "label": "integer"}, "text_classification", Columns(("text",), "label")),
    ({"text": "text", "label": "text"}, "text_classification", Columns(("text",), "label")),
    (TWO | {"label": "class"}, "text_classification", Columns(("sentence1", "sentence2"), "label")),
    (ONE | {"label_text": "text"}, "text_classification", Columns(("text",), "label")),  # it would tell the label
    ({"text": "text", "stars": "real"}, "text_regression", Columns(("text",), "stars")),
    ({"image": "image", "fine": "class"}, "image_classification", Columns(("image",), "fine")),
    ({"audio": "audio", "label": "class"}, "audio_classification", Columns(("audio",), "label")),
    ({"audio": "numbers", "sampling_rate": "integer", "label": "text", "speaker": "text"}, "audio_classification",
     Columns(("audio",), "label")),
])  # fmt: skip
def test_plain_columns_need_no_words(types: dict[str, Any], kind: str, columns: Columns) -> None:
    assert guess(types, asked()) == kind
    assert find(kind, types, asked()) == columns  # type: ignore[arg-type]


@pytest.mark.parametrize(("types", "arguments", "message"), [
    (TWO | {"score": "real"}, {}, r"could be text_regression or similarity"),
    ({"text": "text"}, {}, r"the columns text \(text\);.*Set `kind`"),
    ({"en": "text", "de": "text"}, {"inputs": "en", "target": "de"}, r"text_classification or translation"),
])  # fmt: skip
def test_of_several_kinds_one_must_be_named(types: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        guess(types, asked(**arguments))


@pytest.mark.parametrize(("kind", "types", "arguments", "message"), [
    ("text_classification", ONE | {"other": "class"}, {"target": "lable"}, r"no column `lable`; did you mean `label`"),
    ("image_classification", {"image": "image", "a": "class", "b": "class"}, {}, r"`target` is not given.*such as a"),
    ("text_classification", TWO | {"title": "text", "label": "class"}, {}, r"`inputs` is not given.*several fit"),
    ("similarity", ONE, {"target": "label"}, r"2 columns for similarity"),
    ("image_classification", ONE, {"inputs": "text"}, r"`text` holds text; expected image"),
    ("text_classification", ONE, {"inputs": "text", "target": "text"}, r"both an input and the target"),
    ("translation", {"en": "text", "de": "text"}, {}, r"Set `inputs`"),
])  # fmt: skip
def test_wrong_columns_are_refused(kind: Any, types: dict[str, Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(kind, types, asked(**arguments))


@pytest.mark.parametrize("arguments", [{"inputs": "en"}, {"target": "de"}, {"inputs": "en", "target": "de"}])
def test_a_translation_goes_the_way_that_is_said(arguments: dict[str, Any]) -> None:
    types: Any = {"en": "text", "de": "text"}
    assert find("translation", types, asked(**arguments)) == Columns(("en",), "de")


def test_texts_by_language_become_columns() -> None:
    features = Features({"id": Value("string"), "translation": Translation(["de", "en"])})
    rows = sets.Dataset.from_dict({"id": ["0"], "translation": [{"de": "x", "en": "y"}]}, features=features)
    assert types_of(unfolded(rows).features) == {"id": "text", "de": "text", "en": "text"}
    assert unfolded(rows)["en"][:] == ["y"]
    plain = sets.texts(3)
    assert unfolded(plain) is plain


@pytest.mark.parametrize(("arguments", "message"), [
    ({"sampling": 1}, r"no key `sampling`; did you mean `sampling_rate`"),
    ({"kind": "text_classification", "image_size": 3}, r"no key `image_size`"),
    ({"kind": "text"}, r"`kind` is 'text'"),
    ({"limit": 0}, r"greater than 0"),
    ({"validation": 0.6, "test": 0.5}, r"below 1 together"),
    ({}, r"either `tokenizer`, such as the model's name, or `vocabulary`"),
])  # fmt: skip
def test_keys_are_checked(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = sets.write(tmp_path / "set", train=sets.texts(30))
    with pytest.raises(ConfigError, match=message):
        task(data=folder, **arguments)
