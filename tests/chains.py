"""Chains of nine steps: which are legal by a rule of their own, what the product says of one, and running it."""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.build.build import build_chain, check_stages
from pipeline.build.config import StageConfig
from pipeline.context import Preview
from pipeline.fit import check_chain
from pipeline.model import TorchModel
from pipeline.records.record import Record
from pipeline.runner import run

HERE = Path(__file__).parent
USES = {
    "d": "distill.logits",
    "p": "prune.channels",
    "a": "quantize.aware",
    "e": "export.onnx",
    "s": "quantize.static",
    "y": "quantize.dynamic",
    "w": "quantize.weights",
    "h": "quantize.half",
    "k": "quantize.pack",
}
"""A chain is a text of these letters."""

TRAINING = {"batch_size": 32, "learning_rate": 0.003}


class Net(NamedTuple):
    """A builder and a task of tests/chain_nets.py, and the width of a student."""

    builder: str
    task: str
    student: int = 32


NETS = {
    "cnn": Net("Cnn", "images", 24),
    "lstm": Net("Lstm", "texts"),
    "bert": Net("bert", "texts"),
    "vit": Net("vit", "images"),
}


class Refusal(NamedTuple):
    """Which step of a chain cannot stand where it does, and why."""

    position: int
    reason: str


TORCH, ONNX = "it is given a torch model", "it is given an ONNX file"
TWICE, STEPS = "an earlier stage quantizes already", "the weights are quantized, with steps"
PACKED = {
    "": "no earlier stage quantizes|a student is built anew",
    "w": "weights in blocks",
    "h": "leaves no integers",
    "k": "an earlier stage packs already",
}


def refusal(chain: str) -> Refusal | None:
    """The first step that cannot stand where it does.

    Networks are distilled, pruned and trained, and then exported once; files are quantized. Weights are rounded once,
    and channels go before; a student is new, whatever was before it. Packed are the integers of static and dynamic
    quantization and of training, once.
    """
    exported, rounded = False, ""
    for position, step in enumerate(chain):
        if (step in "dpae") == exported:
            return Refusal(position, ONNX if exported else TORCH)
        if step == "k" and rounded in PACKED:
            return Refusal(position, PACKED[rounded])
        if step in "aswyh" and rounded:
            return Refusal(position, TWICE)
        if step == "p" and rounded:
            return Refusal(position, STEPS)
        exported |= step == "e"
        rounded = step if step in "aswyhk" else "" if step == "d" else rounded
    return None


@cache
def legal() -> tuple[str, ...]:
    """All chains of different steps that are legal; one that is not stays so, whatever comes behind."""
    chains = [""]
    for chain in chains:  # which grows
        chains += [chain + step for step in USES if step not in chain and not refusal(chain + step)]
    return tuple(chains[1:])


def longest() -> Iterator[str]:
    """The legal chains with which no other one begins: to run these is to run all."""
    chains = legal()
    return (chain for chain in chains if not any(other != chain and other.startswith(chain) for other in chains))


def covering() -> list[str]:
    """Some of the longest: whatever stands before another step, or three steps stand in a row, it is so in one of them.

    Chosen greedily, which takes the logarithm more than the fewest at most.
    """
    chains = list(longest())
    left, chosen = {part for chain in chains for part in _parts(chain)}, list[str]()
    while left:
        chosen.append(max(chains, key=lambda chain: len(_parts(chain) & left)))
        left -= _parts(chosen[-1])
    return chosen


def _parts(chain: str) -> set[tuple[str, ...]]:
    return {*combinations(chain, 2), *(tuple(chain[i : i + 3]) for i in range(len(chain) - 2))}


def all_of_them(quick: frozenset[str] = frozenset()) -> list[Any]:
    """The longest chains as parameters: some of the default run, `covering` ones slow, the rest of the matrix."""
    slow = covering()
    return [
        pytest.param(chain, marks=[] if chain in quick else [pytest.mark.slow if chain in slow else pytest.mark.matrix])
        for chain in longest()
    ]


def entries(chain: str, net: Net, **settings: Any) -> list[dict[str, Any]]:
    """The stages of a pipeline file; settings by letter are added to those of a step."""
    student = {"use": f"chain_nets.py:{net.builder}", "width": net.student}
    own: dict[str, dict[str, Any]] = {
        "d": {"student": student, "epochs": 10, **TRAINING},
        "p": {"channels": 0.7, "round_to": 4},
        "a": {"epochs": 1, **TRAINING},
    }
    return [{"use": USES[step], **own.get(step, {}), **settings.get(step, {})} for step in chain]


def factorizing(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with layers of low rank where channels leave."""
    low = {"use": "prune.lowrank", "params": 0.7, "round_to": 4}
    return [low if stage["use"] == USES["p"] else stage for stage in stages]


def check(stages: list[dict[str, Any]], preview: Preview) -> None:
    """What building does with a chain, without reading data: raise ConfigError where it cannot work."""
    chain = build_chain([StageConfig.model_validate(stage) for stage in stages], "stages", HERE, None)
    check_chain(chain, TorchModel)
    check_stages((), chain, preview)


def ran(net: Net, stages: list[dict[str, Any]], runs: Path) -> Record:
    """A run of a chain behind a trained baseline; all runs in a folder share their steps."""
    config = {
        "task": {"use": f"chain_nets.py:{net.task}"},
        "model": {"use": f"chain_nets.py:{net.builder}"},
        "baseline": [{"use": "train.supervised", "epochs": 10, **TRAINING}],
        "stages": stages,
    }
    return run(config, runs=runs, folder=HERE, track=False)
