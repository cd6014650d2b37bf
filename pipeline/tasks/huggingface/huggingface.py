"""What `use: huggingface` names. The task: read the dataset, find out what it is, make the kind of task it is for."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.use import nearest
from pipeline.build.syntax.validate import validate
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface import audio, images
from pipeline.tasks.huggingface.columns import Columns, find, guess, types_of, unfolded
from pipeline.tasks.huggingface.pretrained import model as model
from pipeline.tasks.huggingface.rows import DatasetTask
from pipeline.tasks.huggingface.settings import Kind, Settings
from pipeline.tasks.huggingface.source import Parts, read
from pipeline.tasks.huggingface.text import similarity, texts, translation

KINDS: dict[Kind, tuple[type[Settings], Callable[[Parts, Columns, Any], DatasetTask]]] = {
    "image_classification": (images.Images, images.classification),
    "text_classification": (texts.TextClassification, texts.classification),
    "audio_classification": (audio.Audio, audio.classification),
    "text_regression": (texts.TextRegression, texts.regression),
    "similarity": (similarity.Similarity, similarity.similarity),
    "translation": (translation.Translation, translation.translation),
}


def task(**arguments: Any) -> DatasetTask:
    """A task on a dataset of the hub or of a folder, by the keys of `Settings` and of its kind.

    Example:
        task: {use: huggingface, data: stanfordnlp/sst2, test: validation, tokenizer: google-bert/bert-base-uncased}

    Raises:
        ConfigError: a key does not fit, the dataset cannot be read, or it does not tell what is asked for.
    """
    common = {name: value for name, value in arguments.items() if name in Settings.model_fields}
    reading: Settings = _checked(Settings, common)
    valid_keys = sorted({name for settings, _ in KINDS.values() for name in settings.model_fields})
    if reading.kind:
        _checked(KINDS[reading.kind][0], arguments)
    elif unknown := [name for name in arguments if name not in valid_keys]:  # of every kind, before anything is read
        raise ConfigError(f"there is no key `{unknown[0]}`{nearest(unknown[0], valid_keys)}")
    parts = read(reading).each(unfolded)
    types = types_of(parts.train.features)
    kind = reading.kind or guess(types, reading)
    settings_of, make = KINDS[kind]
    settings = _checked(settings_of, {**arguments, "kind": kind})
    columns = find(kind, types, settings)
    if not (reading.kind and reading.inputs and reading.target):
        note = f"{kind} of {' and '.join(columns.inputs)} to {columns.target}, as the columns' types suggest"
        parts = replace(parts, notes=(note, *parts.notes))
    return make(parts, columns, settings)


def _checked(settings: type[Settings], arguments: dict[str, Any]) -> Any:
    return validate(settings, arguments, None, (), Path())
