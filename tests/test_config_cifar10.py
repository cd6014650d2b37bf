"""CIFAR-10 as `datasets` reads it, and the networks for it: without a network, on small folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

from pipeline.base.use import Reference, find
from pipeline.build.probe import example_inputs
from pipeline.errors import ConfigError
from pipeline.forms.weights import load_weights
from pipeline.measure.cost import torch_macs, torch_params
from pipeline.model import TorchModel
from pipeline.task import Task
from tests.config_data import cifar10

FOLDER = Path(__file__).parents[1] / "configs" / "cifar10"
data: Any = find("data.py", FOLDER)
models: Any = find("models.py", FOLDER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and weights."""
    made = tmp_path_factory.mktemp("cifar10")
    cifar10(made)
    return made


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return data.task(str(folder), augment=True)  # type: ignore[no-any-return]


def test_a_tenth_of_train_validates_and_the_test_part_is_the_test_split(task: Task, folder: Path) -> None:
    assert [len(part) for part in (task.train, task.validation, task.test)] == [216, 24, 60]
    rows = Dataset.from_parquet(str(folder / "test-00000-of-00001.parquet"))
    pixels = torch.tensor(rows[0]["image"].getdata()).view(32, 32, 3).permute(2, 0, 1) / 255
    torch.testing.assert_close(task.show(task.test[0][0]), pixels.float())  # type: ignore[misc]
    assert task.test[0][0]["input"].mean() != pytest.approx(pixels.mean().item(), abs=0.1)  # normalized


def test_a_view_is_the_image_moved_by_four_pixels_at_most_and_perhaps_mirrored(task: Task) -> None:
    inputs = task.train[3][0]
    seen = set[bytes]()
    for view in range(20):
        moved = data.varied(inputs, 5, view)["input"]
        assert torch.equal(moved, data.varied(inputs, 5, view)["input"])
        seen.add(moved.numpy().tobytes())
        padded = torch.nn.functional.pad(inputs["input"], (4,) * 4)
        windows = padded.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert any((windows == one).all(-1).all(-1).all(-1).any() for one in (moved, moved.flip(-1)))
    assert len(seen) > 15


@pytest.mark.parametrize("square", ["erase", "paste"])
def test_squares_without_augmentation_are_refused(folder: Path, square: str) -> None:
    with pytest.raises(ConfigError, match=f"`{square}` is 8; expected 0 without `augment`"):
        data.task(str(folder), **{square: 8})


def test_a_square_is_erased_in_half_of_the_images(folder: Path) -> None:
    augment = data.task(str(folder), augment=True, erase=12).augment
    image, erased = torch.ones(3, 32, 32), 0
    for view in range(400):
        grey = augment({"input": image}, 7, view)["input"] == 0  # type: ignore[misc]
        whole = -torch.nn.functional.max_pool2d(-grey.float(), 12, 1)
        # Whole images have a grey margin of four pixels at most, and 12 by 12 grey pixels are a square.
        erased += bool(whole.any())
        assert int(grey[0].sum()) <= 144 + 2 * 4 * 32
    assert 160 <= erased <= 240
    assert bool(image.all())


def test_a_square_of_another_image_of_train_is_pasted_in_half_of_the_images(folder: Path) -> None:
    task = data.task(str(folder), augment=True, paste=16)
    image, pasted, sources = torch.full((3, 32, 32), 9.0), 0, set[int]()
    for view in range(200):
        shown = task.augment({"input": image}, 7, view)["input"]  # type: ignore[misc]
        other = (shown != 9) & (shown != 0)  # the margin is 0
        if not other.any():
            continue
        pasted += 1
        rows, columns = (other[0].any(axis).nonzero().flatten() for axis in (1, 0))
        square = (slice(None), slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert shown[square].shape == (3, 16, 16)
        matching = [i for i in range(len(task.train)) if torch.equal(task.train[i][0]["input"][square], shown[square])]
        assert len(matching) >= 1
        sources.add(matching[0])
    assert 75 <= pasted <= 125
    assert len(sources) > 40
    assert bool((image == 9).all())


def test_validation_takes_the_share_that_is_asked_for(folder: Path) -> None:
    task = data.task(str(folder), validation=0.25)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [180, 60, 60]


@pytest.mark.parametrize(("settings", "message"), [
    ({"erase": 33}, "`erase` is 33; expected 0 to 32 pixels"),
    ({"paste": -1}, "`paste` is -1; expected 0 to 32 pixels"),
    ({"validation": 1.0}, "`validation` is 1.0; expected more than 0 and less than 1"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        data.task(str(folder), augment=True, **settings)


def test_the_published_weights_fit_in_their_wrapping(task: Task, folder: Path) -> None:
    model = TorchModel.build(Reference(use="models.py:resnet56", folder=FOLDER), example_inputs(task.train))
    assert [text for text in load_weights(model.module, folder / "resnet56.th") if "module." not in text] == []
    torch.manual_seed(0)
    assert torch.equal(model.module.conv1.weight, models.resnet56().conv1.weight)


def test_the_committed_student_is_the_one_of_the_strategies() -> None:
    stages = yaml.safe_load((FOLDER / "strategies.yaml").read_text())["strategies"]["distill + quantize"]
    use, *_ = [stage["student"] for stage in stages if stage["use"] == "distill.logits"]
    builder = Reference(use=use.pop("use"), arguments=use, folder=FOLDER)
    model = TorchModel.build(builder, {"input": torch.zeros(2, 3, 32, 32)})
    assert load_weights(model.module, FOLDER / "weights" / "student.safetensors") == []


def test_the_teacher_has_the_size_and_the_work_that_are_published() -> None:
    teacher = models.resnet56()
    assert torch_params(teacher) == 853_018
    assert torch_macs(teacher, {"input": torch.zeros(1, 3, 32, 32)}) == pytest.approx(125.5e6, rel=0.01)


def test_a_plain_shortcut_takes_every_second_pixel_and_pads_with_channels_of_zeros() -> None:
    x = torch.rand(2, 4, 6, 6)
    found = models.PlainShortcut(4, 8, 2)(x)
    assert torch.equal(found[:, 2:6], x[:, :, ::2, ::2])
    assert not found[:, [0, 1, 6, 7]].any()


def test_equal_widths_may_follow_each_other() -> None:
    for learned in (True, False):
        assert models.ResNet((8, 8, 8), (1, 2, 1), learned)(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(("columns", "parts", "message"), [
    (("image", "label"), ("train",), "has the parts train; expected also test"),
    (("picture", "label"), ("train", "test"), "has the columns picture, label; expected `image` or `img`"),
    (("img", "fine"), ("train", "test"), "has the columns img, fine; expected `image` or `img`, and `label`"),
])  # fmt: skip
def test_other_data_are_refused(tmp_path: Path, columns: Any, parts: Any, message: str) -> None:
    features = Features({columns[0]: Image(), columns[1]: Value("int64")})
    for part in parts:
        rows = {columns[0]: [Pillow.new("RGB", (32, 32))], columns[1]: [0]}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{part}.parquet")
    with pytest.raises(ConfigError, match=message):
        data.task(str(tmp_path))
