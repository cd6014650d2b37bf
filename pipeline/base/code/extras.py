"""Extras: what an installation may leave out, and how it is brought."""

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


def expect_extra(extra: str, where: str = "") -> None:
    """Raise ConfigError where something that an extra brings is not installed; it is not imported."""
    if absent := [name for name in EXTRAS[extra] if version(name) is None]:
        be = "is" if len(absent) == 1 else "are"
        problem = f"it needs the extra `{extra}`, of which {' and '.join(absent)} {be} not installed"
        raise ConfigError(problem, where=where, fix=install(extra=extra))
