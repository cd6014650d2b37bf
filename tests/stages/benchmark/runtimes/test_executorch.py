from pathlib import Path

import pytest

from stages.benchmark.runtimes.executorch import ExecuTorch
from tests import edge
from tests.aliases import Make

RUNTIME = ExecuTorch(use="executorch", timeout=3000)
pytestmark = edge.made(RUNTIME)


def test_a_file_answers_a_batch_of_images_as_the_module_does(tiny: Make, context: Make, tmp_path: Path) -> None:
    assert edge.difference(RUNTIME, tiny(), context(), tmp_path, 8) < 1e-5


def test_tokens_of_64_bits_come_in_the_order_of_the_module(context: Make, tmp_path: Path) -> None:
    assert edge.difference(RUNTIME, edge.words(), context(), tmp_path, 1) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_quantized_file_keeps_its_integers(activations: str, tiny: Make, context: Make, tmp_path: Path) -> None:
    model, step = edge.quantized(tiny(width=32), context(), activations)
    assert edge.difference(RUNTIME, model, context(), tmp_path, 8, precision="i8") <= 2 * step
