"""Datasets and models of Hugging Face, of the hub or a folder: `task: {use: huggingface}`, `model: {use: huggingface}`.

The task's settings are those of its kind: `Settings` in settings.py, and what texts.py, similarity.py, translation.py,
images.py and audio.py add.
"""

from pipeline.tasks.huggingface.kinds import task
from pipeline.tasks.huggingface.start import model

__all__ = ["model", "task"]
