"""What users write into a folder for a chain, and what a run leaves in it."""

from pathlib import Path
from textwrap import dedent, indent

from pipeline.records.record import Record

HEAD = """
import copy, os, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
import torch
from pipeline.errors import Interruption, StageError
from pipeline.model import OnnxModel, TorchModel
from pipeline.context import Context
from pipeline.stage import AnyForm, Stage

FOLDER = Path(__file__).resolve().parent
"""
FLAT = """
from torch import nn

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
"""


def chain_of(*stages: str, model: str = "use: models.py:flat", baseline: str = "", task: str = "data.py") -> str:
    """The text of a pipeline file; a stage is what stands in its braces after `use`."""
    first = f"baseline:\n  - {{use: {baseline}}}\n" if baseline else ""
    chain = "".join(f"  - {{use: {stage}}}\n" for stage in stages)
    return f"task: {{use: {task}}}\nmodel: {{{model}}}\n{first}stages:\n{chain}"


MINE_ALONE = chain_of("mine.py", model="use: models.py:TinyNet")


def stage_file(body: str = "return model", fields: str = "", name: str = "Mine", form: str = "TorchModel") -> str:
    """A file with one stage: the lines of its settings, and those of its `run` from a form to the same."""
    lines = [
        *dedent(fields).strip().splitlines(),
        f"def run(self, model: {form}, ctx: Context) -> {form}:",
        indent(dedent(body).strip(), "    "),
    ]
    return f"{HEAD}\nclass {name}(Stage):\n" + indent("\n".join(lines), "    ") + "\n"


def only_run(folder: Path) -> Path:
    """The folder of the only run in a folder of runs, or in `runs` of a user's folder."""
    (file,) = (*folder.glob("*/record.json"), *folder.glob("runs/*/record.json"))
    return file.parent


def digests(record: Record) -> list[str]:
    """Of its models, the baseline first."""
    return [record.baseline.digest, *(stage.digest for stage in record.stages)]
