"""What a device runs for us: it takes files into a fresh folder, runs processes there, and tells of itself.

Requests come on standard input and answers go to standard output, each a line of JSON, with the bytes of a file behind
it where there is one. The text of this file is sent and run before anything of ours is there, so it imports no more
than Python brings. The folder goes when the input ends: also where the connection breaks, or whoever asked is killed.
"""

import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HELLO = "shrinkline-device-1 "
"""What the first line begins with: before it a login shell may have written what it likes."""
PIECE = 2**20
LAST = 4096  # bytes of what a process wrote

Answer = dict[str, Any]


def main() -> None:
    """Answer requests until there are no more."""
    for end in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(end, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="shrinkline-") as name:
        root = Path(name)
        say({"folder": name, **facts()}, HELLO)
        while line := sys.stdin.buffer.readline():
            request = json.loads(line)
            if request["do"] == "get":
                get(root / request["path"], request["most"])
            else:
                say(put(root / request["path"], request["size"]) if request["do"] == "put" else run(request, root))


def say(answer: Answer, before: str = "") -> None:
    """Write an answer."""
    sys.stdout.buffer.write((before + json.dumps(answer) + "\n").encode())
    sys.stdout.buffer.flush()


def put(path: Path, size: int) -> Answer:
    """Take a file of so many bytes; the answer has the digest of what lies on the disk, or why it could not be kept."""
    left, problem = size, ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while left and (piece := sys.stdin.buffer.read(min(left, PIECE))):
                left -= len(piece)
                file.write(piece)
    except OSError as error:
        problem = str(error)
    while left and (piece := sys.stdin.buffer.read(min(left, PIECE))):  # what there was no room for
        left -= len(piece)
    return {"problem": problem} if problem else {"sha256": digest(path)}


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            sha256.update(piece)
    return sha256.hexdigest()


def run(request: Answer, root: Path) -> Answer:
    """Run a process to its end, for at most so many `seconds`.

    The answer has its `code`, None where it did not end, the last that it wrote, and the sensors before and after it.
    """
    spec = root / "spec.json"
    Path(request["spec"]["result"]).unlink(missing_ok=True)
    before = sensors()
    spec.write_text(json.dumps({**request["spec"], "began": time.monotonic()}))
    command = [sys.executable, "-u", "-m", request["module"], str(spec)]
    # What a runtime leaves among temporary files goes too.
    environment = {**os.environ, "TMPDIR": str(root), **request["environment"]}
    streams: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A session of its own, so that what it started ends with it.
    process = subprocess.Popen(command, cwd=root, env=environment, start_new_session=True, **streams)
    try:
        ended, text = listened(process, time.monotonic() + request["seconds"])
        code = process.wait() if ended else None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {"code": code, "text": text, "before": before, "after": sensors()}


def listened(process: "subprocess.Popen[bytes]", end: float) -> "tuple[bool, str]":
    """Whether a process ended in time, and the last that it wrote; without waking up in between.

    Raises SystemExit where there is nobody any more who asked.
    """
    tail, output = b"", process.stdout
    assert output is not None
    while True:
        heard, _, _ = select.select([output, sys.stdin.buffer], [], [], max(end - time.monotonic(), 0))
        if output in heard:
            piece = os.read(output.fileno(), PIECE)
            tail = (tail + piece)[-LAST:]
        elif heard:
            sys.exit(1)
        if not heard or (output in heard and not piece):
            return bool(heard), tail.decode(errors="replace")


def get(path: Path, most: int) -> None:
    """Give a file of so many bytes at most: an answer with its `size`, None where there is none, and its bytes."""
    size = path.stat().st_size if path.is_file() else None
    say({"size": size})
    if size is not None and size <= most:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, PIECE)
        sys.stdout.buffer.flush()


def facts(system: Path = Path("/")) -> Answer:
    """What the device is: its model as far as it tells, processor kind, system, cores and Python."""
    places = ("proc/device-tree/model", "sys/class/dmi/id/product_name")
    names = [text for place in places if (text := read(system / place))]
    processors = [line for line in read(system / "proc/cpuinfo").splitlines() if line.startswith("model name")]
    names += [line.partition(":")[2].strip() for line in processors[:1]]
    return {
        "model": names[0] if names else None,
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def sensors(system: Path = Path("/")) -> Answer:
    """How hot, fast and busy it is; None where it does not tell.

    In degrees Celsius the hottest zone, in megahertz the highest clock of a core, and as load how many wanted to run at
    a time, over the last minute.
    """
    zones = system.glob("sys/class/thermal/thermal_zone*/temp")
    clocks = system.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    hottest, fastest = most(map(read, zones)), most(map(read, clocks))
    return {
        "temperature_c": None if hottest is None else hottest / 1000,
        "clock_mhz": None if fastest is None else fastest / 1000,
        "load": most(read(system / "proc/loadavg").split()[:1]),
    }


def most(texts: Any) -> "float | None":
    """The largest of what are numbers."""
    numbers = [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]
    return max(numbers) if numbers else None


def read(path: Path) -> str:
    """What a file of the kernel's says; nothing where it says nothing."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
