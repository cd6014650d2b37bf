from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.model import TorchModel
from pipeline.stage import Context
from stages.benchmark.runtimes.ncnn import Ncnn
from tests import edge

RUNTIME = Ncnn(use="ncnn")
pytestmark = edge.made(RUNTIME)


def test_one_file_answers_any_number_of_images_as_the_module_does(
    tiny: Callable[..., TorchModel], context: Callable[..., Context], tmp_path: Path
) -> None:
    model, ctx = tiny(), context()
    told = RUNTIME.convert(model, ctx, tmp_path, 8)
    assert max(edge.difference(RUNTIME, model, ctx, told, batch) for batch in (1, 8)) < 1e-5


def test_an_operator_without_a_layer_is_named_though_pnnx_writes_a_file(
    context: Callable[..., Context], tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"layer \S+ not exists.*cannot load what pnnx wrote"):
        RUNTIME.convert(edge.words(), context(), tmp_path, 1)
