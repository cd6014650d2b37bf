"""Settings of a retraining that would be of no use are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from stages.kd.retraining import Retraining

TERMS = [{"use": "logits"}]


@pytest.mark.parametrize(("settings", "message"), [
    ({"teacher": "labels", "hard_weight": 0.9}, "there is nothing to distill: leave out hard_weight"),
    ({"teacher": "labels", "temperature": 2, "views": 3}, "leave out temperature, views"),
    ({"teacher": "labels", "terms": TERMS}, "leave out terms"),
    ({"teacher": "labels", "cache_teacher": False}, "leave out cache_teacher"),
    ({"teacher": "baseline", "teachers": [{"use": "incoming"}]}, "`teacher` is of no use beside `teachers`"),
    ({"terms": TERMS, "hard_weight": 0.9}, "`hard_weight` is of no use beside `terms`"),
])  # fmt: skip
def test_what_is_of_no_use_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Retraining(epochs=1, **settings)


def test_what_says_the_default_is_taken() -> None:
    retraining = Retraining(epochs=1, teacher="labels", hard_weight=0.3, cache_teacher=True)
    assert retraining.teacher_configs() == ()
    assert len(Retraining(epochs=1, teachers=({"use": "incoming"}, {"use": "baseline"})).teacher_configs()) == 2
