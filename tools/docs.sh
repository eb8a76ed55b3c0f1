#!/usr/bin/env bash
# The API reference as HTML, from the docstrings: writes build/docs/index.html. Arguments go to pdoc instead of that
# output, so that `bash tools/docs.sh --port 8080` serves it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/venv.sh docs

modules=(tfmcu_prune tfmcu_prune.{tflm.footprint,comparison,reporting,boards,zoo,datasets,plots}
    tfmcu_prune.{channels,salience,allocation,regularizer,rules})
[[ $# -gt 0 ]] || set -- --output-directory build/docs
TF_CPP_MIN_LOG_LEVEL=3 python -m pdoc "${modules[@]}" --docformat google "$@"
[[ "$1" != --output-directory ]] || echo "Written: $2/index.html"
