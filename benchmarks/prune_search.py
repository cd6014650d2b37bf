"""The search for a pruning target: costs counted from shapes beside costs of copies that are cut, in one run.

    python benchmarks/prune_search.py [--target 0.475] [--round-to 4] [--rounds 3]

A ResNet-56 for CIFAR-10 (55 convolutions) with random weights. For each unit of the target and each scope:
the seconds of the search both ways, in turns (medians), their ratio, how many costs were asked for, and whether the
answers are the same. At the end what finding the groups of channels takes, once for all of them.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "configs" / "cifar10"))
from models import resnet56

from stages.prune.allocation.costs import Cost, Unit
from stages.prune.allocation.search import Counts, Scope, kept, lost, solve
from stages.prune.coupling import engine

UNITS: tuple[Unit, ...] = ("macs", "params", "channels")
SCOPES: tuple[Scope, ...] = ("uniform", "global")


def main() -> None:
    """Read the command line, and print a row a search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.475)
    parser.add_argument("--round-to", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    module, example = resnet56().eval(), {"input": torch.rand(1, 3, 32, 32)}
    engine.couplings(module, example)  # loads what it needs
    start = time.perf_counter()
    groups = engine.couplings(module, example).groups
    found = time.perf_counter() - start
    prunable = frozenset(layer for group in groups for layer in group.layers)
    print("| target | scope | counted s | copies s | ratio | costs | same |\n|---|---|---|---|---|---|---|")
    for unit, scope in product(UNITS, SCOPES):
        cost = Cost(unit, example, prunable)
        target, asked = given.target * cost.of(module), set[Counts]()

        def cut(counts: Counts, cost: Cost = cost, asked: set[Counts] = asked) -> int:
            asked.add(counts)
            return cost.of(engine.trimmed(module, lost(groups, counts), groups))

        def counted(cost: Cost = cost, scope: Scope = scope) -> Callable[[Counts], float]:
            return cost.by_counts(module, groups, kept(groups, 1.0, scope, given.round_to))

        def seconds(way: Callable[[], Callable[[Counts], float]], *wanted: Any) -> tuple[float, Counts]:
            start = time.perf_counter()
            _, counts = solve(groups, way(), *wanted)
            return time.perf_counter() - start, counts

        wanted = (target, scope, given.round_to)
        rounds = [(seconds(counted, *wanted), seconds(lambda cut=cut: cut, *wanted)) for _ in range(given.rounds)]
        new, old = (median(pair[side][0] for pair in rounds) for side in (0, 1))
        is_same = all(one[1] == other[1] for one, other in rounds)
        print(f"| {unit} | {scope} | {new:.3f} | {old:.2f} | {new / old:.3f} | {len(asked)} | {is_same} |", flush=True)
    print(f"\ngroups of channels found in {found:.1f} s")


if __name__ == "__main__":
    main()
