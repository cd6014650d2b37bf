#!/usr/bin/env bash
# Shrinks a model in any CI and ends with what `shrink` ended with: bash ci.sh CONFIG [words for `shrink run`].
# Leaves artifacts/ with the record, the reports, the log, and package/, the folder to deploy.
set -euo pipefail

config=${1:?the pipeline file is missing}
rm -rf artifacts
mkdir artifacts

code=0
shrink run "$config" "${@:2}" --json > artifacts/record.json || code=$?

case $code in
  0) said="the budget is kept" ;;
  1) said="the budget is not kept" ;;
  2) said="the pipeline file cannot work" ;;
  3) said="a stage failed" ;;
  4) said="disk or memory ran out" ;;
  5) said="too few test examples to tell" ;;
  6) said="an ONNX file from outside crashed" ;;
  7) said="MLflow is down" ;;
  75) said="another run held a lock for too long" ;;
  130 | 143) said="interrupted" ;;
  *) said="a bug" ;;
esac
echo "shrink ended with $code: $said" >&2

# Where the pipeline file cannot work there is no record, and so no run.
run=$(python3 -c 'import json, sys; text = sys.stdin.read(); print(json.loads(text)["folder"] if text else "")' \
  < artifacts/record.json)
if [ -n "$run" ]; then
  for name in report.html summary.md junit.xml run.log; do
    if [ -f "$run/$name" ]; then cp "$run/$name" artifacts/; fi
  done
fi
case $code in
  0 | 1 | 5) shrink package "$run" --output artifacts/package ;;
esac
exit "$code"
