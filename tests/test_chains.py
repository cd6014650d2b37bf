"""Which chains of nine steps are legal: the product and a rule of a few lines agree on all of them."""

import random
import re
from itertools import combinations
from typing import Any

import pytest
import torch

from pipeline.base.use import Reference
from pipeline.build.probe import example_inputs
from pipeline.context import Preview
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from tests import chain_nets
from tests.chains import HERE, NETS, USES, check, covering, entries, factorizing, legal, longest, refusal

CNN = NETS["cnn"]


@pytest.fixture(scope="module")
def preview() -> Preview:
    task = chain_nets.images()
    torch.manual_seed(0)
    builder = Reference(use="chain_nets.py:Cnn", arguments={}, folder=HERE)
    return Preview(TorchModel.build(builder, example_inputs(task.train)), task)


def answer(stages: list[dict[str, Any]], preview: Preview) -> str:
    """Why the product refuses a chain; empty where it takes it."""
    try:
        check(stages, preview)
    except ConfigError as error:
        return str(error)
    return ""


def test_there_are_so_many_legal_chains() -> None:
    assert (len(legal()), len([*longest()])) == (78, 37)
    assert {"dpaek", "pdesk", "adpew", "eh"} <= {*longest()}


def test_any_steps_that_meet_in_a_chain_meet_in_one_of_a_few() -> None:
    few = covering()
    assert len(few) <= 12
    for chain in legal():
        assert all(any(re.search(f"{a}.*{b}", one) for one in few) for a, b in combinations(chain, 2))
        assert all(any(chain[i : i + 3] in one for one in few) for i in range(len(chain) - 2))


@pytest.mark.parametrize("before", ["", *legal()])
def test_a_step_behind_a_legal_chain_is_taken_or_refused_as_the_rule_says(before: str, preview: Preview) -> None:
    """So all 986,409 orders of different steps are decided, as one that is refused is so whatever stands behind."""
    for step in USES:
        chain = before + step
        wrong = refusal(chain)
        expected = wrong and re.escape(f"stages[{wrong.position}] ({USES[step]}): ") + f".*({wrong.reason})"
        assert re.match(expected or "$", answer(entries(chain, CNN), preview)), chain


@pytest.mark.parametrize("before", ["", *(chain for chain in legal() if len(chain) < 3 and "p" not in chain)])
def test_low_rank_stands_where_channels_may_leave(before: str, preview: Preview) -> None:
    wrong = refusal(before + "p")
    place = f"stages[{len(before)}] (prune.lowrank): "
    expected = wrong and re.escape(place) + f".*({wrong.reason})"
    assert re.match(expected or "$", answer(factorizing(entries(before + "p", CNN)), preview))


def test_what_stands_behind_a_refused_step_makes_no_chain_legal(preview: Preview) -> None:
    draw = random.Random(0)
    chains = {"".join(draw.sample([*USES], draw.randint(2, 9))) for _ in range(300)}
    for chain in (chain for chain in chains if refusal(chain)):
        assert answer(entries(chain, CNN), preview).startswith("stages["), chain


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("e?s", ""),
        ("e?k", "no earlier stage quantizes"),
        ("es?", "an earlier stage quantizes already"),
        ("es?k", "an earlier stage quantizes already"),
    ],
)
def test_what_only_measures_quantizes_nothing(stages: str, message: str, preview: Preview) -> None:
    chain = [
        {"use": "quantize.sensitivity", "examples": 8} if step == "?" else entries(step, CNN)[0] for step in stages
    ]
    assert re.search(message or "^$", answer(chain, preview))
