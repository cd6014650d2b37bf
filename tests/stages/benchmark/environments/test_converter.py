import sys
from pathlib import Path

import pytest

from pipeline.errors import StageError
from stages.benchmark.environments.converter import alone, convert

RUNNER = """
import sys

def convert(spec):
    print("\\x1b[31mhalf done\\x1b[0m", flush=True)
"""


def converted(folder: Path, body: str, seconds: float = 60) -> Path:
    runner = folder / "fake_runner.py"
    runner.write_text(f"{RUNNER}    {body}\n")
    spec = {"runner": str(runner), "source": "model.onnx", "model": str(folder / "model.fake")}
    return convert("fake", spec, Path(sys.executable), alone(folder), seconds)


def test_the_file_that_a_converter_writes_is_given(tmp_path: Path) -> None:
    assert converted(tmp_path, "open(spec['model'], 'w').write(spec['source'])").read_text() == "model.onnx"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit('no layer Gather')", "ended with 1: half done | no layer Gather"),
        ("open(spec['model'], 'w').close()", "wrote no file: half done"),
    ],
)
def test_a_converter_that_ends_otherwise_is_told_with_what_it_said(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(StageError) as raised:
        converted(tmp_path, body)
    assert str(raised.value) == f"the converter of fake {message}"
