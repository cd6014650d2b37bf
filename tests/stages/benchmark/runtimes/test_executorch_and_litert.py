"""ExecuTorch and LiteRT, which are made of the same programs."""

from pathlib import Path
from typing import Any

import pytest

from stages.benchmark.runtimes.executorch import ExecuTorch
from stages.benchmark.runtimes.litert import LiteRT
from tests import edge
from tests.aliases import Make

RUNTIMES = ExecuTorch(use="executorch", timeout=3000), LiteRT(use="litert", timeout=3000)
each = pytest.mark.parametrize("runtime", [pytest.param(one, id=one.use, marks=edge.made(one)) for one in RUNTIMES])


@each
def test_a_file_answers_a_batch_of_images_as_the_module_does(
    runtime: Any, tiny: Make, context: Make, tmp_path: Path
) -> None:
    assert edge.difference(runtime, tiny(), context(), tmp_path, 8) < 1e-5


@each
def test_tokens_of_64_bits_come_in_the_order_of_the_module(runtime: Any, context: Make, tmp_path: Path) -> None:
    assert edge.difference(runtime, edge.words(), context(), tmp_path, 1) < 1e-5


@pytest.mark.slow
@each
@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_quantized_file_keeps_its_integers(
    runtime: Any, activations: str, tiny: Make, context: Make, tmp_path: Path
) -> None:
    model, step = edge.quantized(tiny(width=32), context(), activations)
    assert edge.difference(runtime, model, context(), tmp_path, 8, precision="i8") <= 2 * step
