#!/usr/bin/env bash
# mlflow 3.17.2: saving a model whose pip_requirements are given reads the file list of every installed package.
#
# Behaviour: `save_model(..., pip_requirements=[...])` infers nothing, and still asks
# `importlib_metadata.packages_distributions()`, which reads the list of files of each distribution; in an environment
# with torch that takes seconds of a run that takes three.
# Output seen: "packages_distributions was called 1 times" (at least once is the behaviour).
#
# Shrinkline leaves that check out (pipeline/report/mlflow/logged_model.py): the versions it gives are the installed ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install mlflow==3.17.2 numpy==2.4.6
cd "$folder"
MLFLOW_DISABLE_TELEMETRY=true "$folder/env/bin/python" - <<'PY'
import importlib_metadata
import mlflow

calls, real = [], importlib_metadata.packages_distributions


def counted():
    calls.append(1)
    return real()


importlib_metadata.packages_distributions = counted


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[int]) -> list[int]:
        return model_input


mlflow.pyfunc.save_model("model", python_model=Model(), pip_requirements=["numpy==2.4.6"])
print(f"packages_distributions was called {len(calls)} times")
raise SystemExit(0 if calls else "the behaviour has changed")
PY
