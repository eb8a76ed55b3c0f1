#!/usr/bin/env bash
# Checks what would be released: sdist and wheel build, hold what they should and nothing else, and install into an
# empty environment; there the package imports fast, the command runs, `pip check` passes, and the licences of all packages are listed.
#
#   bash tools/release_check.sh              # writes into build/release: dist/, contents.txt, licences.md
#   PYTHON=python3.12 bash tools/release_check.sh
#
# Only committed files go in. It takes minutes, since TensorFlow is installed anew.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="$root/build/release"
rm -rf "$out"
mkdir -p "$out/source" "$out/dist"
git -C "$root" archive HEAD | tar -x -C "$out/source"

"${PYTHON:-python3}" -m venv "$out/builder"
"$out/builder/bin/pip" install --quiet --disable-pip-version-check build
(cd "$out/source" && "$out/builder/bin/python" -m build --outdir "$out/dist" . >"$out/build.log" 2>&1) ||
    { tail -20 "$out/build.log" >&2; echo "error: the package does not build; see $out/build.log" >&2; exit 1; }

"${PYTHON:-python3}" -m venv "$out/empty"
"$out/empty/bin/pip" install --quiet --disable-pip-version-check "$out"/dist/*.whl
"$out/empty/bin/pip" check
cd "$out" # so that the checkout is not what is imported
TF_CPP_MIN_LOG_LEVEL=3 "$out/empty/bin/python" -I "$root/tools/release_facts.py" "$out/dist" "$out/source"
