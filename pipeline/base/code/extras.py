"""Extras: what an installation may leave out, and how it is brought."""

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from pipeline.base.hardware import version
from pipeline.errors import ConfigError

EXTRAS = {
    "audio": ("soundfile",),
    "openvino": ("openvino",),
    "optimum": ("optimum", "optimum-onnx"),
    "timm": ("timm",),
}
"""The extras of the package, and the distributions that each brings."""


def install(name: str = "", extra: str = "") -> str:
    """The command that brings a distribution, by our extra where it is in one."""
    extra = extra or next((e for e, names in EXTRAS.items() if name in names), "")
    return f"pip install 'shrinkline[{extra}]'" if extra else f"pip install {name}"


def misfits(extra: str) -> list[str]:
    """What is not as the distributions of an extra need it, each as a clause; nothing is imported for it."""
    names = EXTRAS[extra]
    absent = [f"{name} is not installed" for name in names if version(name) is None]
    return absent or [text for name in names for text in _unmet(name)]


def expect_extra(extra: str, where: str = "") -> None:
    """Raise ConfigError where what an extra brings is not installed, or beside versions that it does not take."""
    if clauses := misfits(extra):
        problem = f"it needs the extra `{extra}`: {' and '.join(clauses)}"
        raise ConfigError(problem, where=where, fix=install(extra=extra))


def _unmet(name: str) -> Iterator[str]:
    """The requirements of an installed distribution that installed ones do not meet."""
    for requirement in map(Requirement, metadata.requires(name) or ()):
        number = version(requirement.name)
        asked = number and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
        if number and asked and not requirement.specifier.contains(number, prereleases=True):
            yield f"{name} takes {requirement.name}{requirement.specifier}, and {number} is installed"
