"""Datasets and models of Hugging Face, of the hub or a folder: `task: {use: huggingface}`, `model: {use: huggingface}`.

The task's settings are those of its kind: `Settings` in settings.py, and what text/, images.py and audio.py add.
"""
