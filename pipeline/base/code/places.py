"""Whose a file is: a user's, ours, or a library's, which counts by its version."""

import os
import site
import sys
import sysconfig
from functools import cache
from pathlib import Path

OURS = Path(__file__).parents[3]
PACKAGES = ("stages", "pipeline")

_STANDARD = os.path.dirname(os.__file__) + os.sep
_KINDS = ("stdlib", "platstdlib", "purelib", "platlib")
_CACHES = {"XDG_CACHE_HOME": "~/.cache", "HF_HOME": "~/.cache/huggingface", "TORCH_HOME": "~/.cache/torch"}
_SYSTEM = ("/proc", "/sys", "/dev", "/etc")


def is_ours(file: Path) -> bool:
    """Whether it is of our packages."""
    return str(file).startswith(tuple(f"{OURS}{os.sep}{package}{os.sep}" for package in PACKAGES))


@cache
def is_users(name: str) -> bool:
    """Whether a file, by its whole path, is neither of Python, a library or the system, nor in a cache, nor ours."""
    if "site-packages" in name or name.startswith(_STANDARD) or not os.path.isabs(name):  # without a look at the disk
        return False
    file = Path(os.path.realpath(name))
    return (
        not is_ours(file) and file != OURS / "shrinkline.py" and not any(file.is_relative_to(at) for at in _foreign())
    )


@cache
def _foreign() -> list[str]:
    """Folders of Python, of what is installed, of the system, and of caches that can be filled again."""
    places = [sysconfig.get_paths()[kind] for kind in _KINDS]
    places += [*site.getsitepackages(), site.getusersitepackages(), *_SYSTEM]
    places += [sys.prefix] if sys.prefix != sys.base_prefix else []
    places += [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    places += [os.environ.get(name, os.path.expanduser(default)) for name, default in _CACHES.items()]
    return [os.path.realpath(place) for place in places if place]
