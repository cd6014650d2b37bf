"""What would run, what is stored already, and what is suspicious; nothing is trained."""

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.base.devices import pick_device
from pipeline.base.files import folder_digest, scratch
from pipeline.base.formatting import flow
from pipeline.build.build import Built, outline
from pipeline.gate.judge import has_limits
from pipeline.measure.cost import counted_macs, onnx_params, torch_macs, torch_params
from pipeline.model import OnnxModel, TorchModel
from pipeline.run.disk import estimate_bytes
from pipeline.run.foresight import foreseen
from pipeline.run.roundtrip import save_exactly
from pipeline.run.store import key
from pipeline.run.store.changes import Parts, changed
from pipeline.run.store.key import Keys
from pipeline.run.store.store import RESULT, Store
from pipeline.stage import Stage


def as_json(built: Built, store: Store) -> dict[str, Any]:
    """The resolved chain with all settings and what is stored of it, the data, the starting model, the warnings.

    Raises:
        ConfigError: a model that would be trained could not be exported then, or a stage could change nothing.
    """
    built = foreseen(built, store)
    stage_states = states(built, store)
    plan: dict[str, Any] = {
        "name": built.config.name,
        "seed": built.config.seed,
        "data": {name: len(split) for name, split in built.task.splits.items()},
        "chain": [
            {"place": place, "settings": settings, "state": state["state"], "why": state["why"]}
            for (place, settings), state in zip(outline(built), stage_states, strict=True)
        ],
        "disk_bytes": estimate_bytes(built),
        "budget": built.config.budget.model_dump(mode="json", exclude_none=True),
        "notes": list(built.notes),
        "warnings": list(built.warnings),
    }
    plan["model"] = {"form": built.model.form}
    if isinstance(built.model, TorchModel):
        module = built.model.module
        plan["model"] |= {"params": torch_params(module), "macs": torch_macs(module, built.model.example)}
    elif isinstance(built.model, OnnxModel):
        macs, reason = counted_macs(built.model)
        plan["model"] |= {"params": onnx_params(built.model), "macs": macs}
        plan["warnings"] += [f"model: {reason}"] if reason else []
    return plan


def states(built: Built, store: Store, run: str = "a new run") -> list[dict[str, Any]]:
    """For each stage {"state": "cached" or "would run", "why": what differs from the nearest stored result, "key"}.

    The key is null where the stage's input would be made anew. `run` is the name of a run that goes on.
    """
    keys = Keys(built, pick_device(built.config.device), run=run)
    return _states(built, store, keys, started(built, keys))


def started(built: Built, keys: Keys) -> Parts:
    """What the model at the start of the chain is in keys."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        start = Path(folder) / "model"
        save_exactly(built.model, start, built.config.folder)
        return keys.model(folder_digest(start), start)


def _states(built: Built, store: Store, keys: Keys, start: Parts) -> list[dict[str, Any]]:
    stage_states: list[dict[str, Any]] = []
    model: Parts | None = start
    baseline: Parts | None = None
    uses = [entry.use for entry in (*built.config.baseline, *built.config.stages)]
    for i, ((_, stage), use) in enumerate(zip((*built.baseline, *built.stages), uses, strict=True)):
        if i == len(built.baseline):
            baseline = model
        if model is None:
            stage_states.append({"state": "would run", "why": ["its input would be made anew"], "key": None})
            continue
        parts = keys.stage(stage, use, model, baseline)
        digest = key.digest(parts)
        entry = store.peek(digest)
        late = changed(entry.read, keys.read_now(entry.read)) if entry else []
        if entry is None or late:
            near = store.nearest(parts)
            why = changed(near.parts, parts) if near else ["there is no result of this stage yet"]
            why = late or why or ["its stored result is damaged"]
            stage_states.append({"state": "would run", "why": why, "key": digest})
            model = None
        else:
            model_digest = json.loads((entry.path / RESULT).read_text())["digest"]
            model = keys.model(model_digest, entry.path / "model") if model_digest else model
            stage_states.append({"state": "cached", "why": [], "key": digest})
    return stage_states


def show(built: Built, store: Store, console: Console, *, explain: bool = False, full: bool = False) -> None:
    """Print it: of each stage the settings that the file names, and what was foreseen of it.

    Args:
        built: the chain.
        store: what is there already.
        console: where to print.
        explain: say why a stage would run.
        full: print all settings, those that the file names marked.
    """
    plan = as_json(built, store)
    splits = ", ".join(f"{size:,} {name}" for name, size in plan["data"].items())
    console.print(f"[bold]{plan['name']}[/]: {splits} examples, seed {plan['seed']}", highlight=False)
    if "params" in plan["model"]:
        macs = plan["model"]["macs"]
        counts = f"{plan['model']['params']:,} parameters, {'-' if macs is None else f'{macs:,}'} MACs"
        console.print(f"model: {counts}", highlight=False)
    caption = "* as the file has it" if full else "all other settings have their defaults: --full"
    headers = [Column(name, overflow="fold") for name in ("stage", "state", "settings")]  # names of layers are long
    table = Table(*headers, caption=caption, caption_justify="left")
    chain = [
        *zip(built.config.baseline, built.baseline, strict=True),
        *zip(built.config.stages, built.stages, strict=True),
    ]
    for entry, (config, (_, stage)) in zip(plan["chain"], chain, strict=True):
        settings = _all(entry["settings"], config.settings) if full else _own(stage, config.settings)
        state = "\n".join([entry["state"], *(f"- {why}" for why in entry["why"] if explain)])
        notes = [f"-> {_without(note, entry['place'])}" for note in plan["notes"] if note.startswith(entry["place"])]
        table.add_row(entry["place"], state, Text("\n".join([*settings, *notes])), end_section=True)
    console.print(table, highlight=False)
    if has_limits(built.config.budget):
        console.print(f"budget: {_budget(built, full=full)}", highlight=False, markup=False)
    places = tuple(entry["place"] for entry in plan["chain"])
    for note in plan["notes"]:
        if not note.startswith(places):
            console.print(f"note: {note}", highlight=False, markup=False)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)


def _own(stage: Stage, settings: dict[str, Any]) -> list[str]:
    """The settings that a file names, as it does, each with the default where that is another number or word."""
    lines = []
    for name, value in settings.items():
        field = type(stage).model_fields.get(name)
        default = field.get_default() if field and not field.is_required() else None
        differs = isinstance(default, str | int | float) and default != value
        lines.append(f"{name}: {flow(value)}" + f" (default {flow(default)})" * differs)
    return lines


def _all(settings: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """All settings but those that are null, with a mark at those that a file names."""
    return [f"{'* ' * (name in own)}{name}: {flow(value)}" for name, value in settings.items() if value is not None]


def _without(note: str, place: str) -> str:
    return note.removeprefix(place).lstrip(": ,")


def _budget(built: Built, *, full: bool) -> str:
    """The limits in a line of YAML; with `full` also what they mean by default."""
    return flow(built.config.budget.model_dump(mode="json", exclude_none=True, exclude_unset=not full))
