from pathlib import Path

import pytest

from pipeline.deploy import deploy
from pipeline.errors import StageError
from stages.benchmark.runtimes.ncnn import Ncnn
from tests import edge
from tests.aliases import Make

RUNTIME = Ncnn(use="ncnn")
pytestmark = edge.made(RUNTIME)


def test_one_file_answers_any_number_of_images_as_the_module_does(tiny: Make, context: Make, tmp_path: Path) -> None:
    assert edge.difference(RUNTIME, tiny(), context(), tmp_path, 1, 8) < 1e-5


def test_an_operator_without_a_layer_is_named_though_pnnx_writes_a_file(context: Make, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"layer \S+ not exists.*cannot load what pnnx wrote"):
        RUNTIME.convert(edge.words(), context(), tmp_path, 1)


def test_nothing_is_written_beside_the_deployed_file(tiny: Make, context: Make, tmp_path: Path) -> None:
    deployed = deploy(tiny(), tmp_path / "there" / "model.onnx")
    RUNTIME.convert(deployed, context(), tmp_path / "work", 1)
    assert [file.name for file in deployed.path.parent.iterdir()] == ["model.onnx"]
