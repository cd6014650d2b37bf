"""Terms by name: what `terms:` in a config lists."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BeforeValidator, SerializeAsAny, ValidationError, ValidationInfo, WithJsonSchema

from pipeline.base.use import classes_in, find
from pipeline.errors import ConfigError
from stages.kd.terms.term import Term


def parse_terms(value: Any, info: ValidationInfo) -> Any:
    """A list of {use: TERM, ...} as terms; anything else is left for pydantic to refuse.

    Args:
        value: what stands in the config, or terms.
        info: of the validation; `folder` in its context is where a user's files are.

    Raises:
        ValueError: there is no such term, or its settings do not fit.
    """
    folder = info.context["folder"] if info.context else Path()
    return tuple(_parsed(entry, folder) for entry in value) if isinstance(value, list | tuple) else value


Terms = Annotated[
    tuple[SerializeAsAny[Term], ...],
    BeforeValidator(parse_terms),
    MinLen(1),
    WithJsonSchema({"type": "array", "minItems": 1, "items": {"type": "object", "required": ["use"]}}),
]
"""The type of a `terms:` setting."""


def _parsed(entry: Any, folder: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    use = entry.get("use")
    if not isinstance(use, str):
        raise ValueError("each term needs `use`, such as {use: logits}")
    try:
        module = find(use, folder, package="stages.kd.terms")
    except ConfigError as error:
        raise ValueError(f"`{use}` names no term: {error}") from error
    term_classes = classes_in(module, Term)
    if len(term_classes) != 1:
        raise ValueError(f"`{use}` defines {len(term_classes)} terms, expected exactly one subclass of Term")
    try:
        return term_classes[0].model_validate(entry, context={"folder": folder})
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"term {use}: {f'`{where}`: ' if where else ''}{problem['msg']}") from error
