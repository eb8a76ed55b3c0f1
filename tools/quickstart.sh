#!/usr/bin/env bash
# The quick start: makes .venv, installs the package, prunes a network on real data and writes build/quickstart/.
# Arguments go to tools/quickstart.py; `bash tools/quickstart.sh --help` lists them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh" runtime,report,demo
exec python "$(dirname "${BASH_SOURCE[0]}")/quickstart.py" "$@"
