"""What can be known of a task's data before any work: that it is there, finite, disjoint, and fits loss and model."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from pipeline.base.batches import Inputs, Outputs, as_inputs
from pipeline.build.lengths import batch_of, check_lengths
from pipeline.errors import ConfigError, blame
from pipeline.model import Model
from pipeline.task import Output, Split, Task, cross_entropy, first_output, kind, scored

EXAMPLES = 2


@dataclass(frozen=True)
class SplitSummary:
    """One pass over a split: a digest of each example's inputs, one of the whole, and telling positions.

    `extremes` holds the first example and those with the smallest and the largest integer label: where labels are
    out of range, they are. `ends` holds the shortest and the longest example.
    """

    hashes: list[bytes]
    digest: str
    extremes: list[int]
    ends: tuple[int, int] = (0, 0)


def probe(task: Task) -> dict[str, SplitSummary]:
    """See every split once.

    Raises:
        ConfigError: a split is empty, an input is not finite, or test examples occur in another split.
    """
    summaries = {name: see(name, split) for name, split in task.splits.items()}
    test = {digest: i for i, digest in enumerate(summaries["test"].hashes)}
    for name in ("train", "calibration", "validation"):
        shared = [(test[digest], i) for i, digest in enumerate(summaries[name].hashes) if digest in test]
        if shared:
            pairs = ", ".join(f"{a} = {name} {b}" for a, b in shared[:3])
            raise ConfigError(
                f"{len(shared)} of {len(summaries[name].hashes)} {name} examples are also in test (test {pairs})",
                where="task",
                expected="no example of test in another split",
                fix=f"Leave them out of {name}, by Split.select, or `overlap: drop` of the task huggingface",
            )
    return summaries


def see(name: str, split: Split) -> SplitSummary:
    """One pass over a split; see `SplitSummary`."""
    if len(split) == 0:
        raise ConfigError(f"the {name} split is empty", where="task", expected="at least one example")
    hashes, whole, labels = [], hashlib.sha256(), {}
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
        label = _label(target)
        if label is not None:
            labels[i] = label
    extremes = {0} | ({min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)} if labels else set())
    return SplitSummary(hashes, whole.hexdigest(), sorted(extremes), (shortest[2], -longest[2]))


def example_inputs(split: Split) -> Inputs:
    """A batch of the first examples' inputs: what models are traced with, and what is counted and timed of them."""
    return batch_of(split, [i % len(split) for i in range(EXAMPLES)])


def try_out(task: Task, model: Model, seen: dict[str, SplitSummary]) -> list[str]:
    """Run model, loss, decode and score on the telling examples of each split, and the model on the longest too.

    Returns:
        Warnings.

    Raises:
        ConfigError: one of them raises, or gives another shape than it should, or the loss is not finite; batches are
            of other lengths, on an axis that the task's `axes` do not name.
    """
    class_count, highest = 0, -1
    for name, split in task.splits.items():
        check_lengths(task, split, model, seen[name].ends, f"task, {name} examples {list(seen[name].ends)}")
        positions = seen[name].extremes if split.collate else sorted({*seen[name].extremes, *seen[name].ends})
        where = f"task, {name} examples {positions}"
        with blame(ConfigError, where, fix="Look at the shapes and the range of the targets"):
            rows = [split[i] for i in positions]
            batch, targets = (split.collate or default_collate)(rows)
            inputs = as_inputs(batch)
            outputs = model.predict(inputs)
            class_count = classes(task, scored(outputs, task.output))
            labels = [label for _, target in rows if (label := _label(target)) is not None]
            check_range(task, class_count, labels)
            highest = max([highest, *labels])
            _check_repeats(outputs, model.predict(inputs), where)
            _check_loss(task.loss(outputs, targets), where)
            predictions = task.decode(model.predict, inputs)
            _check_predictions(predictions, task.logits, where)
            _check_labels(task, predictions)
            _check_scores(task.score(predictions, targets), len(rows), where)
            _try_metrics(task, predictions, targets, where)
    return [*_chosen_silently(task, outputs), *never_occurring(task, class_count, highest)]


def _chosen_silently(task: Task, outputs: Outputs) -> list[str]:
    """A warning where the first of several outputs is scored because nobody said which."""
    first, *others = outputs
    if task.decode is not first_output or not others or first == "logits":
        return []
    return [
        f"task: of the outputs {', '.join(outputs)} the first one, `{first}`, is trained on and scored; set `output`"
    ]


def _check_repeats(once: Outputs, again: Outputs, where: str) -> None:
    differing = [name for name in once if not torch.equal(once[name], again[name]) and not once[name].isnan().any()]
    if differing:
        fix = "Draw at random in training only, such as F.dropout(x, training=self.training)"
        raise ConfigError(f"the model gives other values for {differing} when asked again", where=where, fix=fix)


def _check_predictions(predictions: Any, logits: bool, where: str) -> None:
    if logits and (not isinstance(predictions, Tensor) or predictions.ndim < 2 or predictions.shape[-1] < 2):
        raise ConfigError(
            f"decode gave {kind(predictions)}",
            where=where,
            expected="logits (N, ..., classes) of at least two classes",
            fix="Set logits=False in the Task",
        )


def _check_labels(task: Task, predictions: Any) -> None:
    """Names that are not one a class would be put beside the wrong ones."""
    if task.labels and task.logits and len(task.labels) != predictions.shape[-1]:
        expected = f"a name for each of the {predictions.shape[-1]} classes of the logits"
        raise ConfigError(f"`labels` has {len(task.labels)} names", where="task", expected=expected)


def _try_metrics(task: Task, predictions: Any, targets: Any, where: str) -> None:
    if task.metrics and not isinstance(targets, Tensor):
        raise ConfigError(f"the targets are {kind(targets)}", where=where, expected="a tensor, since there are metrics")
    for name, metric in task.metrics.items():
        with blame(ConfigError, f"metric `{name}`"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a handful of examples is no fair trial of its value
            float(metric(predictions, targets))


def _check_loss(loss: Any, where: str) -> None:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        fix = "Reduce it, for example by .mean()"
        raise ConfigError(f"loss gave {kind(loss)}", where=where, expected="a scalar tensor", fix=fix)
    if not torch.isfinite(loss):
        raise ConfigError(f"loss gave {float(loss)}", where=where, expected="a finite number")


def _check_scores(scores: Any, size: int, where: str) -> None:
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (size,):
        expected = f"a tensor of shape ({size},), one an example"
        raise ConfigError(f"score gave {kind(scores)}", where=where, expected=expected)


def _hash(inputs: Inputs, where: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            raise ConfigError(f"input `{name}` is a {type(value).__name__}", where=where, expected="a tensor")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ConfigError(f"input `{name}` holds NaN or infinity", where=where, expected="finite inputs")
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _length(inputs: Inputs, *, padded: bool) -> tuple[int, int]:
    """How many numbers there are and, where a collate may cut padding off, how many integers are not zero."""
    whole = [value for value in inputs.values() if padded and not value.is_floating_point()]
    return sum(value.numel() for value in inputs.values()), sum(int(value.count_nonzero()) for value in whole)


def _label(target: Any) -> int | None:
    if isinstance(target, Tensor):
        return int(target) if target.ndim == 0 and not target.is_floating_point() else None
    return int(target) if hasattr(target, "__index__") else None


def _target_bytes(target: Any) -> bytes:
    """Every element: str() of a tensor or an array within a list or a dictionary would shorten it."""
    if isinstance(target, Mapping):
        return b"".join(str(key).encode() + _target_bytes(value) for key, value in target.items())
    if isinstance(target, list | tuple):
        return b"".join(b"," + _target_bytes(value) for value in target)
    return str(target.tolist() if hasattr(target, "tolist") else target).encode()


IGNORED = -100  # what torch's cross-entropy leaves out


def classes(task: Task, output: Tensor) -> int:
    """How many classes a model tells apart by its output (N, classes); 0 where that holds something else."""
    return output.shape[1] if task.logits and isinstance(task.decode, Output) and output.ndim == 2 else 0


def check_range(task: Task, known: int, labels: Sequence[int]) -> None:
    """Check that the model tells the labels' classes apart. A user's loss may count otherwise; what it raises passes.

    Args:
        task: its loss is looked at.
        known: classes that the model tells apart.
        labels: class numbers in the data.

    Raises:
        ConfigError: our loss would be asked for a class that the model has no logit for.
    """
    is_our_loss = getattr(task.loss, "func", task.loss) is cross_entropy
    wrong = [label for label in labels if not 0 <= label < known and label != IGNORED]
    if is_our_loss and known and wrong:
        raise ConfigError(
            f"a label is {wrong[0]}, and the model gives {known} logits",
            expected=f"labels from 0 to {known - 1}",
            fix="Give the model an output for each class, or correct the labels",
        )


def never_occurring(task: Task, known: int, highest: int) -> list[str]:
    """A warning where the model tells more classes apart than the data have, unless the task names them all."""
    if task.labels or highest < 0 or highest + 1 >= known:
        return []
    warning = (
        f"the model gives {known} logits, and no label is above {highest}: {known - highest - 1} classes never occur"
    )
    return [f"task: {warning}, or its head was made for other data"]
