import threading
import time

import pytest

from stages.benchmark.runners.loaded import Arrays, Loaded, Step
from stages.benchmark.runners.measures.throughput import throughput

NAP = 0.01


def loaded_of(step: Step) -> Loaded:
    return Loaded(lambda inputs: step, dict, {}, concurrent=True)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_requests_that_sleep_are_in_flight_together(concurrency: int) -> None:
    found = throughput(loaded_of(lambda: time.sleep(NAP)), {}, concurrency, warmup=1, seconds=0.2)
    assert found["requests_per_second"] <= concurrency / NAP  # a nap is no shorter than asked for
    assert concurrency == 1 or found["requests_per_second"] > 1 / NAP  # as many as one after the other cannot be
    assert 0.2 <= found["seconds"] < 2


def test_one_that_waits_for_the_others_never_ends_without_a_common_start() -> None:
    together = threading.Barrier(3, timeout=20)
    seen: set[int] = set()

    def step() -> None:
        if threading.current_thread() is not threading.main_thread():
            seen.add(threading.get_ident())
            together.wait()

    # No seconds: each thread does one request before and one that counts, and all three meet at each.
    throughput(loaded_of(step), {}, 3, warmup=2, seconds=0)
    assert len(seen) == 3


def test_each_thread_has_a_step_of_its_own() -> None:
    prepared: list[Arrays] = []
    inputs = {"input": [1]}

    def prepare(given: Arrays) -> Step:
        prepared.append(given)
        return lambda: None

    throughput(Loaded(prepare, dict, {}, concurrent=True), inputs, 3, warmup=0, seconds=0.01)
    assert prepared == [inputs] * 3


def test_an_inference_that_fails_ends_it_all() -> None:
    def step() -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        throughput(loaded_of(step), {}, 3, warmup=1, seconds=0.01)
