"""Short names for the types of fixtures."""

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]  # a fixture that makes something
Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
Logs = pytest.LogCaptureFixture
