"""Every legal chain on an LSTM over tokens."""

from pathlib import Path

import pytest

from pipeline.errors import ConfigError, ShrinkError, StageError
from tests import chain_nets
from tests.chain_proofs import prove
from tests.chains import NETS, entries, longest, ran

NET = NETS["lstm"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.slow
@pytest.mark.parametrize("chain", [chain for chain in longest() if "p" not in chain])
def test_a_chain_loads_agrees_and_is_smaller_by_what_it_says(chain: str, runs: Path) -> None:
    prove(ran(NET, entries(chain, NET), runs), chain_nets.texts())


@pytest.mark.slow
@pytest.mark.parametrize(("chain", "error"), [("pesk", ConfigError), ("dpaek", ConfigError), ("adpew", StageError)])
def test_no_channels_leave_it(chain: str, error: type[ShrinkError], runs: Path) -> None:
    """What comes out of quantize.aware is not known before it runs, so that the last chain is refused behind it."""
    place = rf"^stages\[{chain.index('p')}\] \(prune\.channels\): "
    with pytest.raises(error, match=f"{place}no layer can lose channels; expected a convolution or linear layer"):
        ran(NET, entries(chain, NET), runs)
