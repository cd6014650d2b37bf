"""Every legal chain on a ViT."""

from pathlib import Path

import pytest

from tests import chain_nets
from tests.chain_proofs import prove
from tests.chains import NETS, all_of_them, entries, factorizing, ran

NET = NETS["vit"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("chain", all_of_them())
def test_a_chain_loads_agrees_and_is_smaller_by_what_it_says(chain: str, runs: Path) -> None:
    prove(ran(NET, entries(chain, NET), runs), chain_nets.images())


@pytest.mark.slow
@pytest.mark.parametrize("chain", ["dpaek", "pesk", "peh", "pdew"])
def test_layers_of_low_rank_stand_in_it(chain: str, runs: Path) -> None:
    prove(ran(NET, factorizing(entries(chain, NET)), runs), chain_nets.images())
