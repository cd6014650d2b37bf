"""Runtimes by name: what `runtimes:` of benchmark.latency lists."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny, ValidationError, ValidationInfo
from pydantic_core import CoreSchema

from pipeline.base.use import built_in, classes_in, find
from pipeline.errors import ConfigError
from stages.benchmark.runtime import Runtime

PACKAGE = "stages.benchmark.runtimes"


def parse_runtimes(value: Any, info: ValidationInfo) -> Any:
    """A list of names or {use: NAME, ...} as runtimes; anything else is left for pydantic to refuse.

    Args:
        value: what stands in the config, or runtimes.
        info: of the validation; `folder` in its context is where a user's files are.

    Raises:
        ValueError: there is no such runtime, or its settings do not fit.
    """
    folder = info.context["folder"] if info.context else Path()
    return tuple(_parsed(entry, folder) for entry in value) if isinstance(value, list | tuple) else value


class _Schema:
    """Each built-in runtime with its own settings, and files of the user's; made when it is asked for."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        names = built_in(PACKAGE)
        own = {"type": "string", "pattern": r"\.py$"}
        files = {"type": "object", "required": ["use"], "properties": {"use": own}}
        choices = [_schema(name) for name in names]
        return {"type": "array", "minItems": 1, "items": {"anyOf": [{"enum": names}, own, *choices, files]}}


def _schema(name: str) -> dict[str, Any]:
    schema = runtime_class(name, Path()).model_json_schema(mode="validation")
    schema["properties"]["use"] = {"const": name}
    return {key: schema[key] for key in ("type", "additionalProperties", "properties", "required")}


Runtimes = Annotated[tuple[SerializeAsAny[Runtime], ...], BeforeValidator(parse_runtimes), MinLen(1), _Schema]
"""The type of a `runtimes:` setting."""


def _parsed(entry: Any, folder: Path) -> Any:
    entry = {"use": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict):
        return entry
    use = entry.get("use")
    if not isinstance(use, str):
        raise ValueError("each runtime is a name, or a mapping with `use`, such as {use: onnxruntime}")
    try:
        return runtime_class(use, folder).model_validate(entry)
    except ConfigError as error:
        raise ValueError(f"`{use}` names no runtime: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ValueError(f"runtime {use}: {f'`{where}`: ' if where else ''}{problem['msg']}") from error


def runtime_class(use: str, folder: Path) -> type[Runtime]:
    """The one Runtime of a file. Raises ConfigError where there is no such file, or it defines none or several."""
    classes: list[type[Runtime]] = classes_in(find(use, folder, package=PACKAGE), Runtime)
    if len(classes) != 1:
        raise ConfigError(f"it defines {len(classes)} runtimes", expected="exactly one subclass of Runtime")
    return classes[0]
