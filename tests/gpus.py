"""A machine with or without a GPU, as far as the driver's tool tells it."""

from pathlib import Path

from tests.aliases import Patch

LISTED = "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'"


def driver(folder: Path, patch: Patch, script: str | None) -> None:
    """Have PATH hold a tool that runs a script of the shell, and nothing else; None for none."""
    tools = folder / "tools"
    tools.mkdir()
    if script is not None:
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "nvidia-smi").chmod(0o755)
    patch.setenv("PATH", str(tools))
