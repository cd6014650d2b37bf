from stages.benchmark.runners.measures.sampling import FEWEST, sample, warm


def test_there_are_as_many_calls_as_asked_for() -> None:
    calls: list[int] = []
    assert len(warm(lambda: calls.append(1), 4)) == len(calls) == 4
    assert len(sample(lambda: calls.append(1), seconds=1, iterations=6)) == 6
    assert len(calls) == 10


def test_seconds_are_kept_with_at_least_a_few_samples() -> None:
    assert len(sample(lambda: None, seconds=1e-9)) == FEWEST
    assert len(sample(lambda: None, seconds=1e-9, fewest=13)) == 13
    samples = sample(lambda: None, seconds=0.05)
    assert len(samples) > 100
    assert sum(samples) < 1e9
