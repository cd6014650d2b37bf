"""What can be known of a task's data before any work: that it is there, finite and disjoint."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor

from pipeline.base.batches import Inputs, as_inputs
from pipeline.base.targets.labelling import IGNORED
from pipeline.base.targets.summary import TargetSummary
from pipeline.build.lengths import batch_of
from pipeline.errors import ConfigError, Note, blame
from pipeline.task import Split, Task, taken_by

EXAMPLES = 2
READ_AGAIN, IN_A_BATCH = 32, 8  # examples that are read again, and that a collate is tried on


@dataclass(frozen=True)
class SplitSummary:
    """One pass over a split: a digest of each example's inputs, one of the whole, and telling positions.

    `extremes` holds the first example and those with the smallest and the largest whole target: where labels are
    out of range, they are. `ends` holds the shortest and the longest example.
    """

    hashes: list[bytes]
    digest: str
    extremes: list[int]
    ends: tuple[int, int] = (0, 0)
    targets: TargetSummary = field(default_factory=TargetSummary)


def probe(task: Task) -> dict[str, SplitSummary]:
    """See every split once.

    Raises:
        ConfigError: a split is empty, an input is not finite, a target is None or, for a loss of ours, no number, or
            test examples occur in another split.
    """
    summaries = {name: see(name, split, task.ignore_index) for name, split in task.splits.items()}
    for name, split in task.splits.items():
        _expect_numbers(name, split, summaries[name].targets, ours=bool(taken_by(task.loss)))
    test = {digest: i for i, digest in enumerate(summaries["test"].hashes)}
    for name in ("train", "calibration", "validation"):
        shared = [(test[digest], i) for i, digest in enumerate(summaries[name].hashes) if digest in test]
        if shared:
            pairs = ", ".join(f"{a} = {name} {b}" for a, b in shared[:3])
            problem = f"{len(shared)} of {len(summaries[name].hashes)} {name} examples are also in test (test {pairs})"
            fix = f"Leave them out of {name}, by Split.select, or `overlap: drop` of the task huggingface"
            raise ConfigError(problem, where="task", expected="no example of test in another split", fix=fix)
    return summaries


def see(name: str, split: Split, ignore_index: int = IGNORED) -> SplitSummary:
    """One pass over a split; see `SplitSummary`."""
    if len(split) == 0:
        raise ConfigError(f"the {name} split is empty", where="task", expected="at least one example")
    hashes, whole, targets = [], hashlib.sha256(), TargetSummary(ignore_index)
    shortest, longest = (inf, 0, 0), (-inf, 0, 0)
    if split.fingerprint:
        whole.update(split.fingerprint.encode())
    for i in range(len(split)):
        where = f"task, {name} example {i}"
        with blame(ConfigError, where):
            inputs, target = split[i % len(split)]
            digest = _hash(inputs, where)
            length = _length(inputs, padded=split.collate is not None)
        shortest, longest = min(shortest, (*length, i)), max(longest, (*length, -i))
        hashes.append(digest)
        whole.update(digest + _target_bytes(target))
        targets.add(i, target)
    extremes = {0} | ({targets.low_at, targets.high_at} if targets.whole and not targets.real else set())
    return SplitSummary(hashes, whole.hexdigest(), sorted(extremes), (shortest[2], -longest[2]), targets)


def varies(name: str, split: Split, summary: SplitSummary) -> bool:
    """Whether an example, or a batch of its collate, is another one when it is read again; looks at a few of them."""
    count = min(READ_AGAIN, len(split))
    positions = [i * len(split) // count for i in range(count)]
    with blame(ConfigError, f"task, {name} examples read again"):
        readings = [[_content(*split[i]) for i in positions] for _ in range(2)]
        if readings[0] != readings[1] or [digest for digest, _ in readings[0]] != [
            summary.hashes[i] for i in positions
        ]:
            return True
        if split.collate is None:
            return False
        batches = [split.collate([split[i] for i in positions[:IN_A_BATCH]]) for _ in range(3)]
        return len({_content(as_inputs(inputs), targets) for inputs, targets in batches}) > 1


def _content(inputs: Inputs, target: Any) -> tuple[bytes, bytes]:
    return _digest(inputs), _target_bytes(target)


def varying(task: Task) -> list[str]:
    """What is to be said of splits that vary: a note, or a warning where models are compared on them."""
    names = [name for name, split in task.splits.items() if split.varies]
    if not names:
        return []
    text = (
        f"task: examples of {', '.join(names)} are other ones when they are read again: no teacher's logits are kept "
        "for them, and the digest of the data is of one reading"
    )
    if not {"validation", "test"} & {*names}:
        return [Note(text)]
    doubt = (
        "; models are compared in pairs on inputs that differ. Draw at random in `augment`, which is for train alone"
    )
    return [text + doubt]


def example_inputs(split: Split) -> Inputs:
    """A batch of the first examples' inputs: what models are traced with, and what is counted and timed of them."""
    return batch_of(split, [i % len(split) for i in range(EXAMPLES)])


def _hash(inputs: Inputs, where: str) -> bytes:
    """A digest of an example's inputs. Raises ConfigError where one is no tensor, or not finite."""
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"input `{name}` is a {type(value).__name__}", where=where, expected="a tensor")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ConfigError(f"input `{name}` holds NaN or infinity", where=where, expected="finite inputs")
    return _digest(inputs)


def _digest(inputs: Inputs) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in inputs.items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _length(inputs: Inputs, *, padded: bool) -> tuple[int, int]:
    """How many numbers there are and, where a collate may cut padding off, how many integers are not zero."""
    whole = [value for value in inputs.values() if padded and not value.is_floating_point()]
    return sum(value.numel() for value in inputs.values()), sum(int(value.count_nonzero()) for value in whole)


def _expect_numbers(name: str, split: Split, targets: TargetSummary, ours: bool) -> None:
    """Raise ConfigError where a target cannot be collated, or is no number where a loss of ours wants one."""
    for kind, position in targets.misfits.items():
        where = f"task, {name} example {position}"
        if kind == "None" and split.collate is None:
            fix = f"Leave such examples out, or give them {targets.ignore_index}, which is ignored (`ignore_index`)"
            raise ConfigError("the target is None", where=where, expected="a number or a tensor", fix=fix)
        if ours and split.collate is None:
            fix = "Give numbers of classes, or the Task a loss and a score of its own"
            raise ConfigError(f"the target is a {kind}", where=where, expected="a number or a tensor", fix=fix)


def _target_bytes(target: Any) -> bytes:
    """Every element: str() of a tensor or an array within a list or a dictionary would shorten it."""
    if isinstance(target, Mapping):
        return b"".join(str(key).encode() + _target_bytes(value) for key, value in target.items())
    if isinstance(target, list | tuple):
        return b"".join(b"," + _target_bytes(value) for value in target)
    return str(target.tolist() if hasattr(target, "tolist") else target).encode()
