"""What it means when a device cannot be reached, or goes away, in words that help."""

import re
from typing import Any

from pipeline.errors import ResourceError, StageError
from stages.benchmark.hosts.connection import Gone
from stages.benchmark.processes.module import LESS, last_lines

MODULE = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
UNSTARTED = (126, 127)
"""What shells end with where a program is no program, or is not there."""
TOO_OLD = "is too old"
UNREACHABLE = re.compile(
    "Could not resolve|Connection refused|timed out|No route to host|Network is unreachable|Connection (closed|reset)"
)


def explained(gone: Gone, host: Any, during: str) -> StageError:
    """Why a connection is no more.

    Args:
        gone: how it went.
        host: the `Ssh` of the device.
        during: what was done, such as "while it took the model".
    """
    if gone.greeted:
        if gone.expired:
            return _error(host, f"it did not answer in time {during}", "Raise `timeout`")
        return _error(host, f"it went away {during}{_said(gone)}")
    text = gone.text
    if "Host key verification failed" in text and "HAS CHANGED" in text:
        fix = "Find out whether it is the same device, and only then remove the old key: ssh-keygen -R"
        return _error(host, "its host key is another one than the one that is known", fix)
    if "Host key verification failed" in text:
        fix = "Compare its fingerprint, and connect once by hand: ssh asks whether to keep it"
        return _error(host, "its host key is not known", fix)
    if gone.code in UNSTARTED or TOO_OLD in text:
        problem = f"`python` is {host.python}, which it cannot run{_said(gone)}"
        return _error(host, problem, "Give the path of a Python there, 3.10 or newer, that has numpy and the runtime")
    if "Permission denied" in text:
        return _error(host, f"it refused the login{_said(gone)}", "Give an `identity` whose public key it knows")
    if gone.expired or UNREACHABLE.search(text):
        return _error(host, f"it cannot be reached{_said(gone)}" if text else "it did not answer in time")
    return _error(host, f"no Python began to answer there: it ended with {gone.code}{_said(gone)}")


def judged(answer: dict[str, Any], host: Any, who: str, requirement: str) -> None:
    """Raise where a process on a device ended otherwise than with 0.

    Args:
        answer: of the agent's `run`.
        host: the `Ssh` of the device.
        who: the process in messages.
        requirement: what pip installs where the runtime is missing, such as "ncnn==1.0".

    Raises:
        StageError: it failed, or had not ended in time.
        ResourceError: it was killed, most likely for memory.
    """
    code, last = answer["code"], last_lines(answer["text"])
    tail = f": {last}" if last else ""
    if code is None:
        raise _error(host, f"{who} had not ended after {host.timeout:g} s", "Raise `timeout`")
    if code == -9:
        raise ResourceError(f"{host.name}: {who} was killed, as the system does when memory runs out{tail}", fix=LESS)
    if code and (module := MODULE.search(answer["text"])):
        name = module[1].partition(".")[0]
        is_runtime = requirement.lower().replace("-", "_").startswith(name.lower())
        problem = f"{module[1]} is not installed for {host.python} there"
        raise _error(host, problem, f"There: {host.python} -m pip install {requirement if is_runtime else name}")
    if code:
        raise _error(host, f"{who} ended with {code}{tail}")


def _error(host: Any, problem: str, fix: str = "") -> StageError:
    return StageError(f"{host.name}: {problem}", fix=fix)


def _said(gone: Gone) -> str:
    last = last_lines(gone.text).rstrip(".")
    return f": {last}" if last else ""
