"""When and how strongly a term counts."""

import pytest
from pydantic import ValidationError

from stages.kd.terms.labels import Labels


@pytest.mark.parametrize(("settings", "weights"), [
    ({}, {0.0: 1, 0.5: 1, 0.999: 1}),
    ({"weight": 3, "start": 0.25, "end": 0.75}, {0.0: 0, 0.2499: 0, 0.25: 3, 0.7499: 3, 0.75: 0, 0.9: 0}),
    ({"ramp": "up", "weight": 2}, {0.0: 0, 0.25: 0.5, 0.5: 1, 0.75: 1.5}),
    ({"ramp": "down", "weight": 2, "start": 0.5}, {0.25: 0, 0.5: 2, 0.625: 1.5, 0.75: 1}),
    ({"ramp": "up", "start": 0.2, "end": 0.4}, {0.1: 0, 0.3: 0.5, 0.4: 0}),
])  # fmt: skip
def test_weights_over_a_training(settings, weights):
    term = Labels(**settings)
    assert {done: term.weight_at(done) for done in weights} == pytest.approx(weights)


@pytest.mark.parametrize("settings", [{"start": 0.5, "end": 0.5}, {"start": 0.7, "end": 0.2}])
def test_a_time_without_length_is_refused(settings):
    with pytest.raises(ValidationError, match=r"`start` 0\.. is not before `end` 0\.."):
        Labels(**settings)
