from collections.abc import Callable
from pathlib import Path

from pipeline.model import TorchModel
from pipeline.stage import Context
from stages.benchmark.runtimes.executorch import ExecuTorch
from tests import edge

RUNTIME = ExecuTorch(use="executorch", timeout=3000)
pytestmark = edge.made(RUNTIME)


def test_a_file_answers_a_batch_of_images_as_the_module_does(
    tiny: Callable[..., TorchModel], context: Callable[..., Context], tmp_path: Path
) -> None:
    model, ctx = tiny(), context()
    assert edge.difference(RUNTIME, model, ctx, RUNTIME.convert(model, ctx, tmp_path, 8), 8) < 1e-5


def test_tokens_of_64_bits_come_in_the_order_of_the_module(context: Callable[..., Context], tmp_path: Path) -> None:
    model, ctx = edge.words(), context()
    assert edge.difference(RUNTIME, model, ctx, RUNTIME.convert(model, ctx, tmp_path, 1), 1) < 1e-5
