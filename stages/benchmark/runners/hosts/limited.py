"""The fresh process within limits: `python -m stages.benchmark.runners.hosts.limited spec.json`."""

import json
import os
import resource
import sys
from pathlib import Path


def main(spec_path: Path) -> None:
    """Put this process under the `limits` of the spec, and go on as `stages.benchmark.runners.child`.

    Args:
        spec_path: as of `stages.benchmark.runners.child.main`, with `limits`: `cpus`, the processors that it may be put
            on, and `memory_bytes`, that it may allocate; each may be null.
    """
    limits = json.loads(spec_path.read_text())["limits"]
    if limits["cpus"]:
        os.sched_setaffinity(0, limits["cpus"])
    if limits["memory_bytes"]:
        resource.setrlimit(resource.RLIMIT_DATA, (limits["memory_bytes"], limits["memory_bytes"]))
    # Only now: libraries count processors when they are imported.
    from stages.benchmark.runners import child

    child.main(spec_path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
