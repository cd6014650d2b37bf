"""What a runtime is asked, where its file takes inputs of one shape alone."""

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.errors import StageError
from stages.benchmark.processes.process import Spec
from stages.benchmark.runners.loaded import Arrays
from stages.benchmark.runtime import Runtime


def fitting(feeds: Iterable[Arrays], runtime: Runtime, spec: Spec) -> Iterator[Arrays]:
    """The feeds, as they are.

    Args:
        feeds: inputs by name, (N, ...) each.
        runtime: where they go.
        spec: of its process; its `inputs` are those that the file was made for, where it has any.

    Raises:
        StageError: the file has a `fixed_batch`, and so fixed lengths, and an example has other ones.
    """
    if not runtime.fixed_batch or "inputs" not in spec:
        yield from feeds
        return
    with np.load(spec["inputs"]) as made_for:
        shapes = {name: made_for[name].shape[1:] for name in made_for.files}
    for feed in feeds:
        for name, values in feed.items():
            if values.shape[1:] != shapes.get(name, values.shape[1:]):
                problem = f"its file takes `{name}` of {_sizes(shapes[name])} alone, and examples of the task have "
                fix = f"Pad all examples to one length, or leave {runtime.name} out"
                raise StageError(f"{problem}{_sizes(values.shape[1:])} too", fix=fix)
        yield feed


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
