"""Terms by name and from files of a user's."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stages.distill.combine import CombinedDistillation
from tests.trained import tiny_student

STUDENT = tiny_student()
TWO = "from stages.kd.terms.logits import Logits\n\n\nclass A(Logits): ...\n\n\nclass B(Logits): ...\n"


def made(terms: list[Any], folder: Path) -> CombinedDistillation:
    return CombinedDistillation.model_validate({"student": STUDENT, "terms": terms}, context={"folder": folder})


@pytest.mark.parametrize(("term", "message"), [
    ("logit", "a term in place of `logit`: .*did you mean `logits`"),
    ({"use": "logits", "wieght": 1}, "term logits: `wieght`"),
    ({"weight": 1}, r"each term is a name, or a mapping with `use`, such as \{use: logits\}"),
    ("two.py", "a term in place of `two.py`: it defines 2 terms; expected exactly one subclass of Term"),
    ("absent.py", "there is no file"),
    (3, "valid dictionary or instance of Term"),
])  # fmt: skip
def test_what_names_no_term_is_refused(term: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    with pytest.raises(ValidationError, match=message):
        made([term], tmp_path)


def test_a_name_alone_is_a_term_of_the_defaults(tmp_path: Path) -> None:
    assert made(["logits"], tmp_path).terms == made([{"use": "logits"}], tmp_path).terms
