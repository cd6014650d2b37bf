"""What processes on a device tell of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

UNTOLD = "the device does not tell"


def device_of(facts: Sequence[Mapping[str, Any]]) -> tuple[dict[str, JsonValue] | None, dict[str, str]]:
    """What stands in a row as `device`, and why a figure of it is null; None of processes that ran here.

    Beside what the device is, `temperature_c` is that of its hottest zone, `clock_mhz` the highest of its cores, and
    `load` how many wanted to run: before the first process and after the last, the least and the most in between.

    Args:
        facts: what each process of a model told, in the order of the rounds.
    """
    devices = [one["device"] for one in facts if "device" in one]
    if not devices:
        return None, {}
    sensed = [reading for device in devices for reading in (device["before"], device["after"])]
    figures: dict[str, JsonValue] = {name: _course([one.get(name) for one in sensed]) for name in sensed[0]}
    described = {name: value for name, value in devices[-1].items() if name not in ("before", "after")} | figures
    return described, {f"device.{name}": UNTOLD for name, value in described.items() if value is None}


def _course(values: Sequence[float | None]) -> JsonValue:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"before": known[0], "after": known[-1], "least": min(known), "most": max(known)}
