"""The built-in digits."""

import torch
from sklearn.datasets import load_digits

from pipeline.tasks.digits import task


def test_the_images_and_labels_are_those_of_scikit_learn_to_the_bit() -> None:
    splits = task(test=0.5, validation=0.25)
    examples = [split[i] for split in (splits.train, splits.validation, splits.test) for i in range(len(split))]
    data = load_digits()
    images = (torch.tensor(data.images, dtype=torch.float32) / 16).unsqueeze(1)
    ours = sorted((inputs["input"].numpy().tobytes(), int(label)) for inputs, label in examples)
    assert ours == sorted(
        (image.numpy().tobytes(), int(label)) for image, label in zip(images, data.target, strict=True)
    )
