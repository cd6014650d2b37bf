"""Images: the pixels that Pillow gives, scaled as it is said, all of one size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.huggingface import task
from tests import sets


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return sets.write(tmp_path / "images", **sets.split(sets.images(40), train=30, test=10))


def test_pixels_are_those_of_the_file(folder: str) -> None:
    found, rows = task(data=folder), sets.images(40)
    assert (found.kind, found.labels) == ("image_classification", ("a", "b", "c"))
    for i in range(10):
        inputs, label = found.test[i]
        expected = np.asarray(rows[30 + i]["image"]).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(inputs["pixel_values"].numpy(), expected, atol=1e-6)
        assert label == (30 + i) % 3
    batch = next(iter(found.test.loader(4)))
    assert batch.inputs["pixel_values"].shape == (4, 3, 12, 12)
    assert (batch.inputs["pixel_values"].dtype, batch.targets.dtype) == (torch.float32, torch.int64)


def test_pixels_are_resized_made_grey_and_normalized_and_shown_as_they_were(folder: str) -> None:
    found = task(data=folder, image_size=[6, 8], color="grey", mean=0.4, std=0.2)
    inputs, _ = found.test[0]
    plain = np.asarray(sets.images(40)[30]["image"].convert("L").resize((8, 6), Pillow.Resampling.BILINEAR))[None] / 255
    np.testing.assert_allclose(inputs["pixel_values"].numpy(), (plain - 0.4) / 0.2, atol=1e-5)
    np.testing.assert_allclose(found.show(inputs), plain, atol=1e-6)  # type: ignore[arg-type]
    assert "minus [0.4], divided by [0.2], as (1, 6, 8)" in found.preprocessing


def test_each_channel_has_its_own_mean_and_deviation(folder: str) -> None:
    plain, found = task(data=folder), task(data=folder, mean=[0.1, 0.2, 0.3], std=[1, 2, 4])
    expected = plain.test[0][0]["pixel_values"] - torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    expected /= torch.tensor([1, 2, 4])[:, None, None]
    torch.testing.assert_close(found.test[0][0]["pixel_values"], expected)
    with pytest.raises(ConfigError, match=r"`mean` has 2 numbers; expected 1 or 3"):
        task(data=folder, mean=[0.1, 0.2])


def test_grey_images_stay_grey(tmp_path: Path) -> None:
    rows = sets.images(20).map(lambda row: {"image": row["image"].convert("L")})
    assert task(data=sets.write(tmp_path / "grey", train=rows)).train[0][0]["pixel_values"].shape == (1, 12, 12)


def test_a_grey_image_in_front_does_not_take_the_others_colours(tmp_path: Path) -> None:
    rows = sets.images(20).map(lambda row, i: {"image": row["image"].convert("L" if i == 0 else "RGB")}, True)
    folder = sets.write(tmp_path / "mixed", train=rows)
    with pytest.raises(ConfigError, match=r"the first image is grey, and others have colours\. Set `color`"):
        task(data=folder)
    assert task(data=folder, color="grey").train[0][0]["pixel_values"].shape == (1, 12, 12)


def test_images_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    deep = [Pillow.fromarray(np.full((12, 12), 1000 + i, np.uint16)) for i in range(20)]
    rows = Dataset.from_dict(
        {"image": deep, "label": [i % 2 for i in range(20)]},
        Features({"image": Image(), "label": ClassLabel(num_classes=2)}),
    )
    with pytest.raises(ConfigError, match=r"an image has the mode I;16, of more than 8 bits"):
        task(data=sets.write(tmp_path / "deep", train=rows))


def test_images_of_different_sizes_need_one(tmp_path: Path) -> None:
    from datasets import concatenate_datasets

    folder = sets.write(tmp_path / "mixed", train=concatenate_datasets([sets.images(20), sets.images(20, size=10)]))
    with pytest.raises(ConfigError, match=r"images differ in size: \d+x\d+ and \d+x\d+\. Set `image_size`"):
        task(data=folder)
    assert task(data=folder, image_size=8).train[0][0]["pixel_values"].shape == (3, 8, 8)
