"""How much a loaded model does in a second where several requests are in flight: a closed loop."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter

from stages.benchmark.runners.loaded import Arrays, Loaded, Step
from stages.benchmark.runners.measures.sampling import uncollected, warm


def throughput(loaded: Loaded, inputs: Arrays, concurrency: int, warmup: int, seconds: float) -> dict[str, float]:
    """Requests a second, and for how many seconds there were some.

    So many threads share the model. Each sends its next request as soon as it has the answer to the last, from a start
    that they have in common, and what they do in a second is added up.

    Args:
        loaded: the model.
        inputs: of each request.
        concurrency: threads.
        warmup: requests of each thread before.
        seconds: how long each thread goes on.
    """
    steps = [loaded.prepare(inputs) for _ in range(concurrency)]
    for step in steps:
        warm(step, warmup)
    start = Barrier(concurrency)
    with uncollected(), ThreadPoolExecutor(concurrency) as pool:
        loops = list(pool.map(lambda step: _loop(step, start, seconds), steps))
    return {
        "requests_per_second": sum(count / took for count, took in loops),
        "seconds": max(took for _, took in loops),
    }


def _loop(step: Step, start: Barrier, seconds: float) -> tuple[int, float]:
    """How many requests one thread had answered, and in how many seconds."""
    start.wait()
    step()  # what a thread makes for itself at first is no part of it
    began, count = perf_counter(), 0
    while (took := perf_counter() - began) < seconds or not count:
        step()
        count += 1
    return count, took
