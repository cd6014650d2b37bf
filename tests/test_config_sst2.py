"""SST-2's task, its stage and its small encoder, on a small folder with a tiny encoder as teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import nn

from pipeline.base.use import Reference, find
from pipeline.build.config import ModelSource
from pipeline.build.start import build_model
from pipeline.deploy import deploy
from pipeline.errors import ConfigError, StageError
from pipeline.model import TorchModel
from pipeline.task import Task
from tests.aliases import Make
from tests.config_data import reviews

FOLDER = Path(__file__).parents[1] / "configs" / "sst2"
data: Any = find("data.py", FOLDER)
narrow: Any = find("narrow.py", FOLDER)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `set` and `model`."""
    folder = tmp_path_factory.mktemp("sst2")
    reviews(folder)
    return folder


@pytest.fixture(scope="module")
def task(home: Path) -> Task:
    return data.task(str(home / "set"), str(home / "model"), mask=0.3)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def teacher(home: Path, task: Task) -> TorchModel:
    return build_model(ModelSource(use="huggingface", arguments={"name": str(home / "model")}), task)[0]


def test_the_dev_part_is_the_test_split_and_train_validates(task: Task) -> None:
    assert [len(part) for part in (task.train, task.validation, task.test)] == [290, 10, 100]
    assert task.labels == ("no", "yes")


def test_without_a_share_there_is_no_other_wording(home: Path) -> None:
    assert data.task(str(home / "set"), str(home / "model")).augment is None


def test_views_mask_that_share_of_the_words_and_the_first_one_none(task: Task) -> None:
    inputs = {"input_ids": torch.arange(100, 1100), "attention_mask": torch.ones(1000, dtype=torch.int64)}
    assert torch.equal(task.augment(inputs, 5, 0)["input_ids"], inputs["input_ids"])
    one, again, other = (task.augment(inputs, 5, view)["input_ids"] for view in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    masked = one == task.tokenizer.mask_token_id
    assert 0.2 < masked.float().mean() < 0.4
    assert torch.equal(one[~masked], inputs["input_ids"][~masked])
    assert (one[0], one[-1]) == (100, 1099)


def test_swapped_tokens_are_among_the_fifteen_nearest_and_no_special_ones(home: Path, teacher: TorchModel) -> None:
    task = data.task(str(home / "set"), str(home / "model"), swap=0.5)
    words = teacher.module.get_input_embeddings().weight.detach().numpy()  # type: ignore[operator]
    special = task.tokenizer.all_special_ids
    usual = [i for i in range(len(words)) if i not in special]
    neighbours = NearestNeighbors(n_neighbors=16, metric="cosine").fit((words - words.mean(0))[usual])
    rows = neighbours.kneighbors((words - words.mean(0))[usual], return_distance=False)
    near = {usual[row[0]]: {usual[i] for i in row[1:]} for row in rows}
    ids = torch.tensor(usual).repeat(20)
    swapped = task.augment({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 5, 3)["input_ids"]
    assert 0.45 < (swapped != ids).float().mean() < 0.55
    assert (swapped[0], swapped[-1]) == (ids[0], ids[-1])
    assert all(new == old or new in near[old] for old, new in zip(ids.tolist(), swapped.tolist(), strict=True))
    assert len(set(zip(ids.tolist(), swapped.tolist(), strict=True))) > 5 * len(usual)


def test_an_encoder_without_weights_is_one_clear_error(home: Path, tmp_path: Path) -> None:
    data.task(str(home / "set"), str(home / "model")).tokenizer.save_pretrained(str(tmp_path))
    task = data.task(str(home / "set"), str(tmp_path), swap=0.5)
    with pytest.raises(ConfigError, match="Let `tokenizer` name a model that has weights too"):
        task.augment(task.train[0][0], 5, 1)


def test_token_vectors_are_the_teachers_components(teacher: TorchModel, context: Make) -> None:
    stage = narrow.NarrowWords(reader=Reference(use="models.py:Reader", arguments={"embedding": 8}, folder=FOLDER))
    made = stage.run(teacher, context())
    found = made.module.get_parameter("tokens.weight").detach().numpy()
    words = teacher.module.get_input_embeddings().weight.detach().numpy()  # type: ignore[operator]
    assert (found.shape, found.std()) == ((len(words), 8), pytest.approx(0.5, rel=1e-3))
    expected = PCA(8, svd_solver="full").fit_transform(words)
    expected *= found.std() / expected.std()
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-3)  # each component but for its sign


def test_a_teacher_without_token_vectors_is_refused(teacher: TorchModel, context: Make) -> None:
    stage = narrow.NarrowWords(reader=Reference(use="models.py:Reader", folder=FOLDER))
    with pytest.raises(StageError, match="no table of token vectors; expected an encoder of transformers"):
        stage.run(replace(teacher, module=nn.Linear(2, 2)), context())


def test_padding_changes_nothing_and_exported_files_agree(teacher: TorchModel, context: Make, tmp_path: Path) -> None:
    stage = narrow.NarrowWords(reader=Reference(use="models.py:Reader", arguments={"embedding": 8}, folder=FOLDER))
    made = stage.run(teacher, context())
    ids = torch.randint(5, 60, (3, 7))
    mask = torch.ones_like(ids)
    alone = made.predict({"input_ids": ids, "attention_mask": mask})["logits"]
    padded = {
        name: torch.nn.functional.pad(value, (0, 4)) for name, value in (("input_ids", ids), ("attention_mask", mask))
    }
    torch.testing.assert_close(made.predict(padded)["logits"], alone, atol=1e-5, rtol=1e-4)
    file = deploy(replace(made, example=padded), tmp_path / "model.onnx")
    torch.testing.assert_close(file.predict(padded)["logits"], alone, atol=1e-5, rtol=1e-4)
