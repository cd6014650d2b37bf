"""Every legal chain on a CNN with residuals and a depthwise layer."""

from pathlib import Path

import pytest

from tests import chain_nets
from tests.chain_proofs import prove, prove_answers
from tests.chains import NETS, all_of_them, entries, factorizing, ran

NET = NETS["cnn"]
TELLING = frozenset({"dpaek", "pesk", "eyk", "ew", "eh"})
"""Each step stands in one of these, which the default run has."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("chain", all_of_them(TELLING))
def test_a_chain_loads_agrees_and_is_smaller_by_what_it_says(chain: str, runs: Path) -> None:
    prove(ran(NET, entries(chain, NET), runs), chain_nets.images())


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["dpaek", "pesk", "peh", "pdew"])
def test_layers_of_low_rank_stand_in_it(chain: str, runs: Path) -> None:
    prove(ran(NET, factorizing(entries(chain, NET)), runs), chain_nets.images())


@pytest.mark.slow
def test_a_mixture_of_widths_is_packed(runs: Path) -> None:
    record = ran(NET, entries("esk", NET, s={"keep": {"drop": 0.2, "widths": [8, 4]}}), runs)
    before, after = record.stages[1:]
    assert before.score >= record.stages[0].score - 0.2
    assert after.size_bytes < 0.9 * before.size_bytes
    folder, inputs = Path(record.folder), next(iter(chain_nets.images().test.loader(64))).inputs["input"]
    prove_answers(after.name, after, before.name, before, folder, inputs)
