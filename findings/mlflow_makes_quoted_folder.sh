#!/usr/bin/env bash
# mlflow 3.17.2 with SQLAlchemy 2.1.9: a sqlite URI with a percent sign makes another folder than the database's.
#
# Behaviour: SQLAlchemy decodes the path of sqlite:////tmp/a%3Fb/mlflow.db, as its URLs are to be written, and opens
# a?b/mlflow.db. MLflow takes the same text as a path and makes its parents, so that an empty folder `a%3Fb` appears
# beside it. Where a folder is really called `a%3Fb`, its plain path as a URI leads to `a?b`, which is not there: the
# call fails after MLflow has tried for minutes.
# Output seen: "made beside it: a%3Fb"
#
# Shrinkline reaches its database through a link whose path has no such characters (pipeline/report/mlflow/database.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install mlflow==3.17.2 sqlalchemy==2.1.9
mkdir "$folder/runs" "$folder/runs/a?b"
MLFLOW_DISABLE_TELEMETRY=true "$folder/env/bin/python" - "$folder/runs" 2> /dev/null <<'PY'
import sys

import mlflow

mlflow.MlflowClient(f"sqlite:///{sys.argv[1]}/a%3Fb/mlflow.db").search_experiments()
PY
[ -f "$folder/runs/a?b/mlflow.db" ] || { echo "the database is elsewhere: the behaviour has changed"; exit 1; }
echo "made beside it: $(ls "$folder/runs" | grep -v '^a?b$')"
[ -d "$folder/runs/a%3Fb" ] || { echo "the behaviour has changed"; exit 1; }
