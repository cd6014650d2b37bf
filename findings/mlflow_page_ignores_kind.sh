#!/usr/bin/env bash
# mlflow 3.17.2: the page of an experiment of model training opens as one of GenAI traces.
#
# Behaviour: the tag `mlflow.experimentKind` says what an experiment is, and MLflow's own demo sets it. Its pages look at
# what the browser kept of an earlier visit, and without that take GenAI: an experiment that is tagged
# `custom_model_development`, with a run and no trace, opens on "Usage" of traces. With `workflowType=machine_learning` in
# the address it opens on its runs.
# Output seen:
#   by its plain address: overview/usage?workflowType=genai
#   with workflowType=machine_learning: runs?workflowType=machine_learning
#
# Shrinkline ends a run with that address, which names a saved view with its columns too. Needs Chromium: $CHROMIUM, or
# chromium on the path.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install mlflow==3.17.2 playwright==1.65.2
cd "$folder"
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v google-chrome)} MLFLOW_DISABLE_TELEMETRY=true \
    "$folder/env/bin/python" - <<'PY'
import os
import socket
import subprocess
import sys
import time
import urllib.request

from mlflow import MlflowClient
from playwright.sync_api import sync_playwright

PATIENCE = 120_000  # milliseconds
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
client = MlflowClient("sqlite:///mlflow.db")
tags = {"mlflow.experimentKind": "custom_model_development"}
experiment = client.create_experiment("trained", tags=tags)
client.log_metric(client.create_run(experiment).info.run_id, "accuracy", 0.9)
command = f"{sys.executable} -m mlflow server --port {port} --workers 1 --backend-store-uri sqlite:///mlflow.db"
server = subprocess.Popen(command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    page_of = f"http://127.0.0.1:{port}/#/experiments/{experiment}"
    opened = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        for option in ("", "?workflowType=machine_learning"):
            page = browser.new_context().new_page()
            page.goto(page_of + option, timeout=PATIENCE)
            page.wait_for_url(lambda url: f"experiments/{experiment}/" in url, timeout=PATIENCE)
            opened.append(page.url.partition(f"experiments/{experiment}/")[2].partition("&")[0])
        browser.close()
finally:
    server.terminate()
    server.wait()
print("by its plain address:", opened[0])
print("with workflowType=machine_learning:", opened[1])
expected = ["overview/usage?workflowType=genai", "runs?workflowType=machine_learning"]
if opened != expected:
    sys.exit(f"it behaves otherwise now; expected {expected}")
PY
