"""Two ways side by side: what the benchmarks that time them by ratios have in common."""

import argparse
from collections.abc import Callable
from statistics import median

import torch


def rounds(doc: str | None) -> int:
    """How many rounds the command line asks for; torch then has as many threads as it says. Called once."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return int(given.rounds)


def compare(name: str, count: int, new: Callable[[], float], old: Callable[[], float]) -> None:
    """Print the median of new over old, and the least and the most, over rounds that follow one to warm up."""
    ratios = [new() / old() for _ in range(count + 1)][1:]
    print(f"{name:32} {median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})", flush=True)
