from collections.abc import Callable
from pathlib import Path

from pipeline.model import TorchModel
from pipeline.stage import Context
from stages.benchmark.runtimes.mnn import Mnn
from tests import edge

RUNTIME = Mnn(use="mnn")
pytestmark = edge.made(RUNTIME)


def test_one_file_answers_any_number_of_images_as_the_module_does(
    tiny: Callable[..., TorchModel], context: Callable[..., Context], tmp_path: Path
) -> None:
    model, ctx = tiny(), context()
    told = RUNTIME.convert(model, ctx, tmp_path, 8)
    assert max(edge.difference(RUNTIME, model, ctx, told, batch) for batch in (1, 8)) < 1e-5


def test_tokens_of_64_bits_come_in_by_name(context: Callable[..., Context], tmp_path: Path) -> None:
    model, ctx = edge.words(), context()
    told = RUNTIME.convert(model, ctx, tmp_path, 8)
    assert max(edge.difference(RUNTIME, model, ctx, told, batch) for batch in (1, 8)) < 1e-5
