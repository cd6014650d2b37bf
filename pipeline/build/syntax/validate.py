"""Settings from data: what does not fit is one error at its line, with what was expected and the nearest key."""

from pathlib import Path
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ValidationError

from pipeline.base.data.keys import Keys, keys_in
from pipeline.base.use import nearest
from pipeline.build.syntax.asked import answer_key
from pipeline.errors import ConfigError

EXPECTED = {
    "dict_type": "a mapping, such as {min: 0.95}",
    "model_type": "a mapping, such as {use: export.onnx} or {min: 0.95}",
    "list_type": "a list, such as [1]",
    "tuple_type": "a list, such as [1]",
    "byte_size": "a size, such as 40 kB or 1 MiB",
    "byte_size_unit": "a size, such as 40 kB or 1 MiB",
}
"""What pydantic says in its own terms, by the type of the error."""


class Places(Protocol):
    """What knows where keys are, such as a `Source`."""

    def place(self, path: Keys) -> str:
        """Where a key is."""


def validate(model: type[BaseModel], data: Any, source: Places | None, at: Keys, folder: Path) -> Any:
    """`model` from `data`; the first problem becomes one ConfigError at its line, with the nearest valid key."""
    try:
        return model.model_validate(data, context={"folder": folder})
    except ValidationError as error:
        # A misspelt key comes before the missing one that it was meant to be.
        problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        path: Keys = (*at, *keys_in(problem["loc"], data))
        where = source.place(path) if source else ".".join(map(str, path)) or model.__name__
        raise _explain(problem, model, path, where) from None


def fields(model: Any, path: Keys) -> list[str]:
    """The keys that are valid at `path` below `model`."""
    for key in path:
        if isinstance(key, int):
            continue
        annotation = model.model_fields[key].annotation if key in getattr(model, "model_fields", {}) else None
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [name for name, field in model.model_fields.items() if not field.exclude]


def _explain(problem: Any, model: type[BaseModel], path: Keys, where: str) -> ConfigError:
    key, message = path[-1] if path else "", problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        valid_keys = fields(model, problem["loc"][:-1])
        hint = answer_key(str(key), valid_keys) or nearest(str(key), valid_keys)
        return ConfigError(f"there is no key `{key}`{hint}", where=where)
    if problem["type"] == "missing":
        return ConfigError(f"the key `{key}` is missing", where=where, fix=f"Add `{key}:`")
    value = problem.get("input")
    name = f"{path[-2]}[{key}]" if isinstance(key, int) and len(path) > 1 else str(key)
    description = f"`{name}` is {value!r}" if not isinstance(value, dict | list) else f"`{name}` does not fit"
    if not path:
        description = "the settings do not fit"
    expected = EXPECTED.get(problem["type"], message[:1].lower() + message[1:]).removeprefix("expected ")
    return ConfigError(description, where=where, expected=expected.removeprefix("input should be "))
