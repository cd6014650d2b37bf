"""What a saved model has beside its weights or graph: the example, as safetensors, and model.json."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from pipeline.base.batches import Inputs
from pipeline.base.files import read_json
from pipeline.errors import ConfigError, blame


def save_rest(directory: Path, form: str, example: Inputs, **rest: Any) -> None:
    """Write the example and model.json, with the form, the names of the inputs in order, and the rest."""
    whole = {name: value.clone().contiguous() for name, value in example.items()}
    save_file(whole, directory / "example.safetensors")
    content = {"form": form, "inputs": list(example), **rest}
    (directory / "model.json").write_text(json.dumps(content, indent=2) + "\n")


def load_rest(directory: Path, form: str) -> tuple[dict[str, Any], Inputs]:
    """model.json and the example. Raises ConfigError where a model of another form is saved there, or none."""
    rest = read_rest(directory)
    if rest["form"] != form:
        raise ConfigError(f"it holds the {rest['form']} form", where=str(directory), expected=f"the {form} form")
    with blame(ConfigError, str(directory / "example.safetensors")):
        example = load_file(directory / "example.safetensors")
        # What is read lies unaligned in memory, where some kernels sum in another order: a copy gives the same bits.
        return rest, {name: example[name].clone() for name in rest["inputs"]}


def read_rest(directory: Path) -> dict[str, Any]:
    """model.json. Raises ConfigError where there is none, or it is damaged."""
    try:
        rest = read_json(directory / "model.json")
    except FileNotFoundError:
        raise ConfigError("there is no saved model", where=str(directory), expected="a model.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"its model.json cannot be read: {error}", where=str(directory)) from None
    if not isinstance(rest, dict) or not isinstance(rest.get("form"), str) or not isinstance(rest.get("inputs"), list):
        raise ConfigError("its model.json is damaged", where=str(directory), expected="a form and names of inputs")
    return rest
