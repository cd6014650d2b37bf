"""The file that a model is deployed as is made once, and is never another model's."""

from pathlib import Path

from pipeline.model import OnnxModel, TorchModel
from pipeline.run import measuring
from pipeline.run.measuring import DeployedFiles
from tests.aliases import Make, Patch


def test_each_model_has_its_file_made_once_and_again_if_gone(tiny: Make, tmp_path: Path, monkeypatch: Patch) -> None:
    paths: list[Path] = []

    def write(model: TorchModel, path: Path) -> OnnxModel:
        path.write_bytes(b"x")
        paths.append(path)
        return OnnxModel(path, model.example)

    monkeypatch.setattr(measuring, "deploy", write)
    first, same, files = tiny(), tiny(), DeployedFiles()  # equal in all, and two objects
    file = files.of(first, tmp_path)
    assert files.of(first, tmp_path).path == file.path
    assert files.of(same, tmp_path).path != file.path
    assert len(paths) == 2
    file.path.unlink()
    assert files.of(first, tmp_path).path.exists()
    assert len(paths) == 3
    assert files.of(file, tmp_path) is file
    (tmp_path / "measured.onnx").write_bytes(b"x")
    third = tiny(seed=1)
    assert files.add(third, tmp_path / "measured.onnx").path == files.of(third, tmp_path).path
    assert len(paths) == 3
