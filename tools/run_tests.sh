#!/usr/bin/env bash
# Checks everything: lint (ruff), types (mypy), tests and doctests (pytest), a file of tests a core. Arguments go to pytest:
#
#   bash tools/run_tests.sh                      # all but the slow tests
#   bash tools/run_tests.sh -m slow              # the slow ones
#   bash tools/run_tests.sh tests/test_zoo.py -x # some
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" runtime,report,demo,qat,dev
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ruff check --config .ci/ruff.toml .
ruff format --config .ci/ruff.toml --check .
mypy
exec python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow" "$@"
