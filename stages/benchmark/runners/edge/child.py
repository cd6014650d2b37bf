"""The fresh process that converts one model: `python -m stages.benchmark.runners.edge.child spec.json`."""

import json
import sys
from contextlib import suppress
from pathlib import Path

from stages.benchmark.runners.child import runner


def main(spec_path: Path) -> None:
    """Have a runner convert what the spec describes.

    Args:
        spec_path: a JSON object: `runner`, as in `stages.benchmark.runners.child`, whose convert(spec) writes the file
            `model` from `source`, and whatever else it reads.
    """
    with suppress(OSError):  # a system without it
        # Where memory runs out, this process ends and not the one that waits for it.
        Path("/proc/self/oom_score_adj").write_text("1000")
    spec = json.loads(spec_path.read_text())
    runner(spec["runner"]).convert(spec)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
