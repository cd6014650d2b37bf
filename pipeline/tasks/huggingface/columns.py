"""Which columns of a dataset are what, by their types, and what kind of task they make where they are plain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.base.use import nearest
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.settings import Kind, Settings

if TYPE_CHECKING:
    from datasets import Dataset, Features

Type = Literal["image", "audio", "numbers", "text", "class", "integer", "real", "languages", "other"]
Types = Mapping[str, Type]

TARGETS = ("label", "labels", "target", "class", "category", "score", "similarity_score")
NUMBERING = ("id", "idx", "index", "guid")
REAL: tuple[Kind, ...] = ("text_regression", "similarity")
OF_KIND: dict[Kind, tuple[Type, ...]] = {
    "image_classification": ("image",),
    "audio_classification": ("audio", "numbers"),
}
"""The types of an input; texts for all others."""


@dataclass(frozen=True)
class Columns:
    """What goes in, and what should come out."""

    inputs: tuple[str, ...]
    target: str


def types_of(features: "Features") -> dict[str, Type]:
    """The type of each column."""
    return {name: _type(feature) for name, feature in features.items()}


def guess(types: Types, settings: Settings) -> Kind:
    """The kind of task that the columns make.

    Raises:
        ConfigError: they make none, or could make several.
    """
    kinds = _possible(types, settings)
    if len(kinds) == 1:
        return kinds[0]
    problem = f"the columns {_listed(types)}" + (f" could be {' or '.join(kinds)}" if kinds else "")
    fix = f"Set `kind`, such as {kinds[0] if kinds else 'text_classification'}" + ("" if kinds else ", and the columns")
    raise ConfigError(problem, where=settings.data, expected="columns that tell what the task is", fix=fix)


def find(kind: Kind, types: Types, settings: Settings) -> Columns:
    """The columns that the settings name, or else those that alone have the type that is needed.

    Raises:
        ConfigError: there is no such column, or there is more than one choice.
    """
    for name in (*settings.inputs, *([settings.target] if settings.target else [])):
        if name not in types:
            raise ConfigError(f"there is no column `{name}`{nearest(name, list(types))}", where=settings.data)
    if kind == "translation":
        return _translation(types, settings)
    target = settings.target or _one("target", _targets(kind, types, settings), types, settings)
    inputs = settings.inputs or _inputs(kind, {name: t for name, t in types.items() if name != target}, settings)
    if target in inputs:
        raise ConfigError(f"`{target}` is both an input and the target", where=settings.data)
    _check_inputs(kind, inputs, types, settings)
    return Columns(inputs, target)


def unfolded(rows: "Dataset") -> "Dataset":
    """The rows with the texts of a column by language, `{"en": ..., "de": ...}`, as columns of their own."""
    folded = [f"{name}." for name, type_ in types_of(rows.features).items() if type_ == "languages"]
    if not folded:
        return rows
    rows = rows.flatten()
    short = {name: name.split(".", 1)[1] for name in rows.column_names if name.startswith(tuple(folded))}
    return rows.rename_columns({name: new for name, new in short.items() if new not in rows.column_names})


def _type(feature: object) -> Type:
    from datasets import Audio, ClassLabel, Image, LargeList, List, Translation, Value

    if isinstance(feature, Value):
        return _scalar(feature.dtype)
    if isinstance(feature, List | LargeList) and isinstance(feature.feature, Value):
        return "numbers" if _scalar(feature.feature.dtype) == "real" else "other"
    types: dict[type, Type] = {Image: "image", Audio: "audio", ClassLabel: "class", Translation: "languages"}
    if isinstance(feature, dict) and feature and all(_type(inner) == "text" for inner in feature.values()):
        return "languages"  # a record of texts: what JSON lines make of a translation
    return next((type_ for kind, type_ in types.items() if isinstance(feature, kind)), "other")


def _scalar(dtype: str) -> Type:
    if dtype in ("string", "large_string", "string_view"):
        return "text"
    if dtype.startswith(("int", "uint", "bool")):
        return "integer"
    return "real" if dtype.startswith(("float", "decimal")) else "other"


def _possible(types: Types, settings: Settings) -> list[Kind]:
    """The kinds that the columns can make."""
    for kind, allowed_types in OF_KIND.items():
        if set(types.values()) & set(allowed_types):
            return [kind]
    texts = [name for name in settings.inputs or _texts(types) if types.get(name) == "text"]
    texts = [name for name in texts if name != settings.target]
    classes, reals = _targets("text_classification", types, settings), _targets("text_regression", types, settings)
    if settings.target:
        is_real = types.get(settings.target) == "real"
        classes, reals = ([], [settings.target]) if is_real else ([settings.target], [])
    if types.get(settings.target or "") == "text" and settings.target not in TARGETS:
        return ["text_classification", "translation"]  # labels as words, or texts
    if classes and texts:
        return ["text_classification"]
    if reals and texts:
        return ["text_regression"] if len(texts) == 1 else [*REAL]
    return ["translation"] if len(_texts(types)) == 2 else []


def _targets(kind: Kind, types: Types, settings: Settings) -> list[str]:
    """The columns that could be the target."""
    free = {name: type_ for name, type_ in types.items() if name not in (*settings.inputs, *NUMBERING)}
    plain, also = (("real",), ("integer",)) if kind in REAL else (("class",), ("integer", "text"))
    candidates = [name for name, type_ in free.items() if type_ in plain]
    if len(candidates) == 1:
        return candidates
    usual = [name for name, type_ in free.items() if name in TARGETS and type_ in (*plain, *also)]
    return usual or candidates


def _texts(types: Types) -> list[str]:
    """The columns of texts; one such as `label_text` tells the label in words, and is none to read."""
    texts = [name for name, type_ in types.items() if type_ == "text" and name not in (*NUMBERING, *TARGETS)]
    return [name for name in texts if not any(name.startswith(f"{t}_") or name.endswith(f"_{t}") for t in TARGETS)]


def _inputs(kind: Kind, types: Types, settings: Settings) -> tuple[str, ...]:
    if kind in OF_KIND:
        return (_one("inputs", [name for name, type_ in types.items() if type_ in OF_KIND[kind]], types, settings),)
    texts = _texts(types)
    if len(texts) not in (1, 2):
        _one("inputs", texts, types, settings)
    return tuple(texts)


def _one(key: str, names: list[str], types: Types, settings: Settings) -> str:
    if len(names) == 1:
        return names[0]
    problem = f"`{key}` is not given, and of the columns {_listed(types)} {'several fit' if names else 'none fits'}"
    fix = f"Set `{key}`" + (f", such as {names[0]}" if names else "")
    raise ConfigError(problem, where=settings.data, fix=fix)


def _check_inputs(kind: Kind, inputs: tuple[str, ...], types: Types, settings: Settings) -> None:
    allowed_types = OF_KIND.get(kind, ("text",))
    number = 2 if kind == "similarity" else None if kind.startswith("text") else 1
    if number and len(inputs) != number:
        problem = f"`inputs` are {', '.join(inputs)}"
        raise ConfigError(problem, where=settings.data, expected=f"{number} column{'s' * (number > 1)} for {kind}")
    for name in inputs:
        if types[name] not in allowed_types:
            problem = f"the column `{name}` holds {types[name]}"
            raise ConfigError(problem, where=settings.data, expected=f"{' or '.join(allowed_types)} for {kind}")


def _translation(types: Types, settings: Settings) -> Columns:
    """The two columns; which way it goes must be said, of one of them at least."""
    rest = [name for name in _texts(types) if name not in settings.inputs and name != settings.target]
    inputs = settings.inputs or (tuple(rest) if settings.target else ())
    target = settings.target or (rest[0] if len(settings.inputs) == 1 == len(rest) else None)
    if len(inputs) != 1 or target is None:
        fix = "Set `inputs`, the column of what is translated, and `target`"
        raise ConfigError(f"the columns are {_listed(types)}", where=settings.data, fix=fix)
    return Columns(inputs, target)


def _listed(types: Types) -> str:
    return ", ".join(f"{name} ({type_})" for name, type_ in types.items())
