"""The built-in stages, for people (`shrink stages`) and for editors (`shrink schema`)."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.base.formatting import flow
from pipeline.base.use import built_in, classes_in, find, nearest
from pipeline.build.config import PipelineConfig
from pipeline.build.source import ANCHORS
from pipeline.errors import ConfigError
from pipeline.fit import FORMS
from pipeline.stage import Stage

if TYPE_CHECKING:
    from pipeline.records.record import Record
    from pipeline.report.packaged.target import Target

RUNTIMES = "stages.benchmark.runtimes"
TRAINING = "train.supervised"
"""The stage whose settings those of all training are."""


def built_in_stages() -> dict[str, type[Stage]]:
    """Every built-in stage by the name that `use:` takes: a method in the folder of its family."""
    methods = [name for name in built_in("stages") if "." in name]
    modules = {name: find(name, Path(), package="stages") for name in methods}
    return {name: classes[0] for name, module in modules.items() if (classes := classes_in(module, Stage))}


def describe(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Name, one line of help, and each setting with its type, default and help.

    Args:
        names: of stages, or of families; all of them unless given.

    Raises:
        ConfigError: there is no stage of a name.
    """
    stages = built_in_stages()
    for name in names:
        if name not in {*stages, *(stage.partition(".")[0] for stage in stages)}:
            raise ConfigError(f"there is no stage `{name}`{nearest(name, list(stages))}", where="shrink stages")
    return [
        {"name": name, "help": _help(stage), "settings": _settings(stage, stage.model_fields)}
        for name, stage in stages.items()
        if not names or name in names or name.partition(".")[0] in names
    ]


def _help(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _settings(model: type[BaseModel], names: Iterable[str]) -> list[dict[str, Any]]:
    properties = model.model_json_schema()["properties"]
    fields = {name: model.model_fields[name] for name in names}
    return [
        {
            "name": key,
            "default": "required"
            if field.is_required()
            else to_jsonable_python(field.get_default(call_default_factory=True)),
            "type": _type(properties[key]),
            "help": field.description or "",
        }
        for key, field in fields.items()
    ]


def describe_runtimes() -> list[dict[str, Any]]:
    """Each runtime of benchmark.latency: name, help, version, why it cannot run here, the forms it takes, settings."""
    result = []
    for name in built_in(RUNTIMES):
        runtime = runtime_called(name)
        chosen = type(runtime)
        facts = {"version": runtime.version(), "missing": runtime.absent() or runtime.missing()}
        takes = [text for form, text in FORMS.items() if form in runtime.forms]
        settings = _settings(chosen, runtime.settings)
        result.append({"name": name, "help": _help(chosen), **facts, "takes": takes, "settings": settings})
    return result


def runtime_called(name: str, **settings: Any) -> Any:
    """A built-in runtime, with its defaults unless given. Raises ConfigError where there is none of that name."""
    (chosen,) = classes_in(find(name, Path(), package=RUNTIMES), BaseModel)
    return chosen(use=name, **settings)


def target_of(name: str, record: "Record") -> "Target":
    """A runtime for `shrink package`, with the settings that it has in a run; raises as `runtime_called`."""
    from pipeline.report.packaged.target import Target

    settings: list[Any] = [entry for stage in record.stages for entry in _listed(stage.settings.get("runtimes"))]
    own = [dict(entry) for entry in settings if isinstance(entry, dict) and entry.get("use") == name]
    runtime = runtime_called(**{"name": name, **{key: v for key, v in (own or [{}])[0].items() if key != "use"}})
    deploy = partial(find("stages.benchmark.deployment:deploy", Path()), runtime)
    return Target(name, frozenset(form.form for form in runtime.forms), deploy)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def show_runtimes(console: Console) -> None:
    """Print a row a runtime."""
    table = Table("runtime", "here", "takes", "settings", "what it times")
    for entry in describe_runtimes():
        settings = [f"{setting['name']}: {setting['type']}" for setting in entry["settings"]]
        here = entry["missing"] or entry["version"]
        table.add_row(entry["name"], here, ", ".join(entry["takes"]), "\n".join(settings) or "-", entry["help"])
    console.print(table, highlight=False, markup=False)


def show_names(entries: Sequence[dict[str, Any]], console: Console) -> None:
    """Print a row a stage: its name, and what comes out of it."""
    table = Table("stage", "what comes out", caption="shrink stages NAME: its settings", caption_justify="left")
    for i, entry in enumerate(entries):
        family = entry["name"].partition(".")[0]
        last = i + 1 == len(entries) or not entries[i + 1]["name"].startswith(f"{family}.")
        table.add_row(Text(entry["name"]), Text(entry["help"]), end_section=last)
    console.print(table, highlight=False, markup=False)


def show(entries: Sequence[dict[str, Any]], console: Console, *, full: bool = False) -> None:
    """Print a table a stage; those settings that all training has are named alone, unless `full`."""
    training = _settings(trained := built_in_stages()[TRAINING], trained.model_fields)
    for entry in entries:
        hidden = [] if full or entry["name"] == TRAINING else [s for s in entry["settings"] if s in training]
        names = ", ".join(setting["name"] for setting in hidden)
        table = Table("setting", "default", "type", "help", title=f"{entry['name']}: {entry['help']}")
        table.caption = f"and how it is trained, as {TRAINING} is: {names}" if hidden else None
        table.title_justify = table.caption_justify = "left"
        for setting in entry["settings"]:
            if setting not in hidden:
                table.add_row(*map(Text, _row(setting)))
        console.print(table, highlight=False, markup=False)


def _row(setting: dict[str, Any]) -> list[str]:
    kinds = " | ".join(dict.fromkeys(setting["type"].split(" | ")))  # a mapping of each kind is a mapping
    return [setting["name"], flow(setting["default"]), kinds, setting["help"]]


def pipeline_schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file: each built-in stage with its own settings, and files of the user's."""
    schema = PipelineConfig.model_json_schema()
    schema["properties"].pop("folder", None)
    definitions = schema["$defs"]
    choices = []
    for name, stage in built_in_stages().items():
        stage_schema = stage.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= stage_schema.pop("$defs", {})
        stage_schema["properties"] = {"use": {"const": name}, **stage_schema["properties"]}
        stage_schema["required"] = ["use", *stage_schema.get("required", [])]
        definitions[name] = stage_schema
        choices.append({"$ref": f"#/$defs/{name}"})
    own = {"type": "object", "required": ["use"], "properties": {"use": {"type": "string", "pattern": r"\.py$|:"}}}
    definitions["StageConfig"] = {"oneOf": [*choices, own]}
    _open_references(definitions)
    lists = schema["properties"]["stages"]
    schema["properties"]["strategies"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {key: lists[key] for key in ("type", "items", "minItems")},
        "description": "in place of stages: a name to each list of stages, for `shrink compare`",
    }
    schema["patternProperties"] = {f"^{ANCHORS}": {"description": "a place for anchors"}}
    schema["required"] = [key for key in schema["required"] if key != "stages"]
    schema["oneOf"] = [{"required": [key]} for key in ("stages", "strategies")]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _open_references(definitions: dict[str, Any]) -> None:
    """A reference is `use` with any arguments beside it, or a bare string."""
    for name, definition in definitions.items():
        properties = definition.get("properties", {})
        if {"folder", "arguments"} <= properties.keys():
            del properties["folder"], properties["arguments"]
            definitions[name] = {"anyOf": [{**definition, "additionalProperties": True}, {"type": "string"}]}


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
