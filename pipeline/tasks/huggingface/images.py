"""Images and classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from pipeline.base.batches import Inputs
from pipeline.errors import ConfigError
from pipeline.tasks.huggingface.columns import Columns
from pipeline.tasks.huggingface.rows import DatasetTask, Encoding, dataset_task, encoded_parts
from pipeline.tasks.huggingface.settings import Count, Settings
from pipeline.tasks.huggingface.source import Parts
from pipeline.tasks.huggingface.targets import TARGET, Classes, classes, of_classes

PIXELS = "pixel_values"
MODES = {"grey": "L", "rgb": "RGB"}
GREY = ("1", "L", "LA")
DEEP = ("I", "F")  # how the modes begin that have more than 8 bits a channel

Numbers = tuple[float, ...]
Color = Literal["grey", "rgb"]


def _pair(value: Any) -> Any:
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


Channels = Annotated[Numbers, BeforeValidator(_listed), Field(min_length=1, max_length=3)]


class Images(Settings):
    """The keys of image classification."""

    image_size: Annotated[tuple[Count, Count], BeforeValidator(_pair)] | None = Field(
        None, description="height and width, or one number for both; as they are unless given"
    )
    color: Color | None = Field(None, description="grey or rgb; as the first image is unless given")
    scale: float = Field(1 / 255, gt=0, description="what pixels from 0 to 255 are multiplied by")
    mean: Channels = Field((0.0,), description="taken off the scaled pixels, one number or one a channel")
    std: Channels = Field((1.0,), description="what the rest is divided by, likewise")


def classification(parts: Parts, columns: Columns, settings: Images) -> DatasetTask:
    """Single-label classification of images `pixel_values` (N, C, H, W): accuracy is the score."""
    column, target = columns.inputs[0], classes(parts.whole, columns.target)
    try:
        first = parts.train[0][column]
    except OSError as error:
        raise ConfigError(f"the first image of train cannot be read: {error}") from error
    color: Color = settings.color or ("grey" if first.mode in GREY else "rgb")
    channels = 1 if color == "grey" else 3
    for name in ("mean", "std"):
        if len(getattr(settings, name)) not in (1, channels):
            wrong = f"`{name}` has {len(getattr(settings, name))} numbers"
            raise ConfigError(wrong, expected=f"1 or {channels}, as there are channels")
    if min(settings.std) <= 0:
        raise ConfigError(f"`std` is {list(settings.std)}", expected="numbers above zero")
    size = settings.image_size or (first.height, first.width)
    encode = partial(encode_images, partial(pixels_of, settings, column, size, color), column, target)
    key = [column, target.key, size, color, settings.image_size is not None, settings.color is None]
    encoding = Encoding(encode, (column, target.column), {PIXELS: "binary", TARGET: target.type}, key, batch=100)
    shape, scaling = (channels, *size), Scaling(settings.scale, settings.mean, settings.std)
    plain = settings.mean == (0.0,) and settings.std == (1.0,)
    words = f"{color} pixels * {settings.scale:.6g}"
    words += "" if plain else f", minus {list(settings.mean)}, divided by {list(settings.std)}"
    words += f", as {shape}, channel first"
    words += ", resized without keeping the aspect, bilinear" if settings.image_size else ""
    rows = encoded_parts(parts, encoding, partial(scaling.read, shape))
    rest = {**of_classes(target), "show": scaling.undone, "kind": "image_classification"}
    return dataset_task(parts, settings, rows, **rest, preprocessing=words)


def encode_images(
    pixels: Callable[[Any], bytes], column: str, target: Classes, rows: dict[str, list[Any]]
) -> dict[str, list[Any]]:
    """Images as bytes, so that no file is decoded twice, and their labels."""
    return {PIXELS: [pixels(image) for image in rows[column]], TARGET: target(rows[target.column])}


def pixels_of(settings: Images, column: str, size: tuple[int, int], color: Color, image: Any) -> bytes:
    """An image's bytes (H, W, C). Raises ConfigError where there is none, or it does not fit the others."""
    from PIL import Image

    if image is None:
        raise ConfigError(f"a row has no image in `{column}`", fix="Leave such rows out of the dataset")
    if image.mode.startswith(DEEP):
        problem = f"an image has the mode {image.mode}, of more than 8 bits a channel"
        raise ConfigError(problem, expected="8 bits a channel", fix="Convert the images first")
    if settings.color is None and color == "grey" and image.mode not in GREY:
        raise ConfigError("the first image is grey, and others have colours", fix="Set `color`, grey or rgb")
    height, width = size
    if settings.image_size:
        image = image.convert(MODES[color]).resize((width, height), Image.Resampling.BILINEAR)
    elif (image.height, image.width) != size:
        problem = f"images differ in size: {image.height}x{image.width} and {height}x{width}"
        raise ConfigError(problem, fix=f"Set `image_size`, such as {height}")
    return np.asarray(image.convert(MODES[color]), dtype=np.uint8).tobytes()


@dataclass(frozen=True)
class Scaling:
    """What is done to the pixels; see `Images`."""

    scale: float
    mean: Numbers
    std: Numbers

    def read(self, shape: tuple[int, int, int], row: Mapping[str, Any]) -> tuple[Inputs, int]:
        """An example of a row: `pixel_values` float32 of a shape (C, H, W), and the class."""
        channels, height, width = shape
        flat = np.frombuffer(row[PIXELS].as_buffer(), dtype=np.uint8).reshape(height, width, channels)
        pixels = torch.from_numpy(flat.transpose(2, 0, 1).astype(np.float32)).mul_(self.scale)
        if self.mean != (0.0,) or self.std != (1.0,):
            pixels = (pixels - _by_channel(self.mean)) / _by_channel(self.std)
        return {PIXELS: pixels}, row[TARGET].as_py()

    def undone(self, inputs: Inputs) -> Tensor:
        """The image of one example as it was before it was scaled, (C, H, W) from 0 to 1."""
        pixels = inputs[PIXELS] * _by_channel(self.std) + _by_channel(self.mean)
        return (pixels / self.scale / 255).clamp(0, 1)


def _by_channel(numbers: Numbers) -> Tensor:
    return torch.tensor(numbers)[:, None, None]
