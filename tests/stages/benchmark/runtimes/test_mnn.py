from pathlib import Path

from stages.benchmark.runtimes.mnn import Mnn
from tests import edge
from tests.aliases import Make

RUNTIME = Mnn(use="mnn")
pytestmark = edge.made(RUNTIME)


def test_one_file_answers_any_number_of_images_as_the_module_does(tiny: Make, context: Make, tmp_path: Path) -> None:
    assert edge.difference(RUNTIME, tiny(), context(), tmp_path, 1, 8) < 1e-5


def test_tokens_of_64_bits_come_in_by_name(context: Make, tmp_path: Path) -> None:
    assert edge.difference(RUNTIME, edge.words(), context(), tmp_path, 1, 8) < 1e-5
