#!/usr/bin/env bash
# pytest-xdist 3.8.0 with pytest 9.2.0: `--dist loadgroup` ignores the groups and says nothing.
#
# Behaviour: tests that `xdist_group` names should run in one process. xdist tells groups by appending "@name" to the
# private `_nodeid` of each test, which pytest 9.2 no longer reads (`nodeid` is made of its parts), so each test goes
# wherever there is room. Tests that rest on one another's work then fail, now and then.
# Output seen: "one group ran in 2 processes". With pytest 9.0.2 it is 1.
#
# Shrinkline gives each process whole files (`--dist loadfile`, Makefile).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install pytest==9.2.0 pytest-xdist==3.8.0
cat > "$folder/test_group.py" <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(12))
def test_in_one_process(number):
    with open("processes", "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\n")
    time.sleep(0.3)
PY
cd "$folder"
env/bin/pytest -q -n 2 --dist loadgroup -p no:cacheprovider test_group.py > /dev/null
count=$(sort -u processes | wc -l)
echo "one group ran in $count processes"
[ "$count" -eq 2 ] || { echo "the behaviour has changed"; exit 1; }
