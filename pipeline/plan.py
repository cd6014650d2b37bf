"""What would run and what is suspicious; nothing is trained."""

from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.build import Built, outline
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import TorchModel


def as_json(built: Built) -> dict[str, Any]:
    """The resolved chain with all settings, the data, the starting model, and the warnings."""
    found: dict[str, Any] = {
        "name": built.config.name,
        "seed": built.config.seed,
        "data": {name: len(split) for name, split in built.task.splits.items()},
        "chain": [{"place": place, "settings": settings} for place, settings in outline(built)],
        "budget": built.config.budget.model_dump(mode="json", exclude_none=True),
        "warnings": list(built.warnings),
    }
    if isinstance(built.model, TorchModel):
        module = built.model.module
        found["model"] = {"params": torch_params(module), "macs": torch_macs(module, built.model.example)}
    return found


def show(built: Built, console: Console) -> None:
    """Print it."""
    found = as_json(built)
    splits = ", ".join(f"{size:,} {name}" for name, size in found["data"].items())
    console.print(f"[bold]{found['name']}[/]: {splits} examples, seed {found['seed']}", highlight=False)
    if "model" in found:
        console.print(
            f"model: {found['model']['params']:,} parameters, {found['model']['macs']:,} MACs", highlight=False
        )
    table = Table("stage", "settings")
    for entry in found["chain"]:
        settings = "\n".join(f"{key}: {value}" for key, value in entry["settings"].items() if value is not None)
        table.add_row(entry["place"], settings, end_section=True)
    console.print(table, highlight=False)
    if found["budget"]:
        console.print(f"budget: {found['budget']}", highlight=False)
    for warning in found["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
