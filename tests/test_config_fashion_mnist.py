"""Fashion-MNIST as `datasets` reads it: from a folder of parquet files with images as PNG, without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pillow
from torch.utils.data import Subset, TensorDataset

from pipeline.base.use import Reference, find
from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError
from pipeline.model import TorchModel
from pipeline.task import Split

FOLDER = Path(__file__).parents[1] / "configs" / "fashion_mnist"
data: Any = find("data.py", FOLDER)

Write = Callable[[str, int], Path]


def pictures(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images (N, 28, 28), no two alike, whose first pixel is twenty times the label."""
    made = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    made[:, 0, 0] = 20 * (np.arange(count) % 10)
    return made


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes one part of `count` images into the folder that it returns."""

    def written(part: str, count: int) -> Path:
        features = Features({"image": Image(), "label": ClassLabel(names=list(data.LABELS))})
        images = [Pillow.fromarray(image) for image in pictures(count, seed=len(part))]
        rows = Dataset.from_dict({"image": images, "label": [i % 10 for i in range(count)]}, features=features)
        rows.to_parquet(tmp_path / f"{part}-00000-of-00001.parquet")
        return tmp_path

    return written


def everything(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    batch = next(iter(split.loader(len(split))))
    return batch.inputs["input"], batch.targets


def contents(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in everything(split)[0]}


def test_without_a_test_part_a_sixth_of_train_is_held_out(write: Write) -> None:
    task = data.task(path=str(write("train", 120)))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [90, 10, 20]
    assert len(contents(task.train) | contents(task.validation) | contents(task.test)) == 120
    again = data.task(path=str(write("train", 120)))
    assert torch.equal(everything(again.test)[0], everything(task.test)[0])


def test_a_test_part_is_the_test_split_in_its_order(write: Write) -> None:
    write("train", 120)
    task = data.task(path=str(write("test", 30)))
    assert [len(part) for part in (task.train, task.validation, task.test)] == [110, 10, 30]
    assert len(contents(task.train) | contents(task.validation)) == 120
    expected = torch.from_numpy(pictures(30, seed=len("test"))).unsqueeze(1).float() / 255
    torch.testing.assert_close(everything(task.test)[0], expected)


def test_images_are_from_0_to_1_and_keep_their_labels(write: Write) -> None:
    task = data.task(path=str(write("train", 120)))
    for split in task.splits.values():
        images, labels = everything(split)
        assert (images.shape[1:], images.dtype) == ((1, 28, 28), torch.float32)
        assert 0 <= float(images.min()) < float(images.max()) <= 1
        torch.testing.assert_close(images[:, 0, 0, 0] * 255 / 20, labels.float())
    assert contents(task.calibration) <= contents(task.train)
    assert (len(task.labels), task.labels[9]) == (10, "Ankle boot")
    assert "(1, 28, 28)" in task.preprocessing


def test_examples_lie_in_plain_tensors_so_that_a_batch_is_one_indexing(write: Write) -> None:
    train = data.task(path=str(write("train", 120))).train.dataset
    assert type(train) is Subset
    assert type(train.dataset) is TensorDataset


def test_limit_cuts_every_part(write: Write) -> None:
    write("train", 120)
    task = data.task(path=str(write("test", 30)), limit=24)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [22, 2, 24]


def test_a_folder_that_is_not_there_or_holds_nothing_is_one_clear_error(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match=r"cannot be read.*--set task\.path=FOLDER") as caught:
            data.task(path=str(folder))
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_columns_are_named(tmp_path: Path) -> None:
    Dataset.from_dict(
        {"text": ["a"], "label": [0]}, features=Features({"text": Value("string"), "label": Value("int64")})
    ).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ConfigError, match=r"the columns text, label; expected also image"):
        data.task(path=str(tmp_path))


def test_augmentation_is_asked_for_and_moves_and_mirrors(write: Write) -> None:
    folder = str(write("train", 120))
    assert data.task(path=folder).augment is None
    augment = data.task(path=folder, augment=True).augment
    image = torch.zeros(1, 28, 28)
    image[0, 10, 5] = 1
    places = set()
    for view in range(400):
        made = augment({"input": image}, 7, view)["input"]
        assert torch.equal(made, augment({"input": image}, 7, view)["input"])
        ((_, row, column),) = made.nonzero().tolist()
        places.add((row, column))
    rows, columns = {row for row, _ in places}, {column for _, column in places}
    assert rows == {8, 9, 10, 11, 12}
    assert columns == {3, 4, 5, 6, 7, 20, 21, 22, 23, 24}
    assert float(image.sum()) == 1


def test_a_square_is_erased_in_half_of_the_images(write: Write) -> None:
    augment = data.task(path=str(write("train", 120)), augment=True, erase=8).augment
    image, erased = torch.ones(1, 28, 28), 0
    for view in range(400):
        made = augment({"input": image}, 7, view)["input"]
        black = torch.nn.functional.max_pool2d(made, 8, 1) == 0
        # Whole images have a black margin of two pixels at most, and 8 by 8 pixels of nothing are a square.
        erased += bool(black.any())
        assert int((made == 0).sum()) <= 64 + 2 * 2 * 28
    assert 160 <= erased <= 240
    assert bool(image.all())


def test_the_network_fits_the_task_at_several_sizes(write: Write) -> None:
    task = data.task(path=str(write("train", 120)))
    for widths, blocks in (([8, 8, 16], [1, 0, 0]), ([4, 8], [0, 1])):
        builder = Reference(use="models.py:FashionNet", arguments={"widths": widths, "blocks": blocks}, folder=FOLDER)
        outputs = TorchModel.build(builder, example_inputs(task.train)).predict(next(iter(task.test.loader(4))).inputs)
        assert next(iter(outputs.values())).shape == (4, 10)
