"""Runtimes by name: what `runtimes:` of benchmark.latency lists."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen
from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny
from pydantic_core import CoreSchema

from pipeline.base.data.named import Named
from pipeline.base.use import built_in
from stages.benchmark.runtime import Runtime

PACKAGE = "stages.benchmark.runtimes"
NAMED = Named(Runtime, PACKAGE, "runtime", "{use: onnxruntime}")


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
    schema = NAMED.class_of(name, Path()).model_json_schema(mode="validation")
    schema["properties"]["use"] = {"const": name}
    keys = ("type", "additionalProperties", "properties", "required")
    return {key: _inlined(schema[key], schema.get("$defs", {})) for key in keys}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema with what it refers to in place of the references, for it becomes a part of another one."""
    if isinstance(schema, list):
        return [_inlined(part, definitions) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(part, definitions) for key, part in schema.items()}


Runtimes = Annotated[tuple[SerializeAsAny[Runtime], ...], BeforeValidator(NAMED.parse), MinLen(1), _Schema]
"""The type of a `runtimes:` setting."""
