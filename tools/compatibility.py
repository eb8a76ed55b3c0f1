"""Which TensorFlow and Keras the package runs with: a table of pairs, each tested.

    python tools/compatibility.py --pairs 2.21.0:3.15.1,2.21.0:3.12.0,2.20.0:3.15.1

The packages of a pair are installed without their dependencies into a folder that stands before everything else on
the path; all others are those of the environment that runs this script, so that a row differs from the next by its
pair alone. Other interpreters: run it with them. Rows go to the end of compatibility.json, and the table beside it
shows them all.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from absl import app, flags

from tfmcu_prune.files import replacing

ROOT = Path(__file__).resolve().parent.parent
PAIRS = flags.DEFINE_list("pairs", ["2.21.0:3.15.1"], "TensorFlow and Keras versions, TF:KERAS.")
OUTPUT = flags.DEFINE_string("output", "build/compatibility", "Folder of the packages and the table.")
TESTS = flags.DEFINE_list(
    "tests",
    ["tests/test_surgery.py", "tests/test_gates.py", "tests/test_resources.py", "tests/test_callback.py",
     "tests/test_converter.py"],
    "Test files to run.",
)  # fmt: skip
_VERSIONS = "import keras, numpy, tensorflow; print(tensorflow.__version__, keras.__version__, numpy.__version__)"


def tested(tensorflow: str, keras: str) -> dict[str, str]:
    """Install a pair, run the tests with it, and return a row of the table."""
    row = {"python": platform.python_version(), "tensorflow": tensorflow, "keras": keras, "numpy": ""}
    folders = []
    for package, version in (("keras", keras), ("tensorflow", tensorflow)):
        folder = Path(OUTPUT.value).resolve() / f"py{row['python']}-{package}-{version}"
        if metadata.version(package) != version:
            folders.append(str(folder))
            if not folder.exists():
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
                subprocess.run([*pip, f"{package}=={version}"], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, str(ROOT)]), "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = _run([sys.executable, "-c", _VERSIONS], environment)
    if found.returncode:
        return {**row, "result": _last(found.stderr, "Error")}
    *pair, row["numpy"] = found.stdout.split()
    if pair != [tensorflow, keras]:
        raise ValueError(f"Expected TensorFlow {tensorflow} and Keras {keras}. Received: {pair}")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-m", "not slow"]
    done = _run([*command, *TESTS.value], environment)
    (Path(OUTPUT.value) / f"py{row['python']}-{tensorflow}-{keras}.log").write_text(done.stdout + done.stderr)
    return {**row, "result": _last(done.stdout + done.stderr, r"\d+ (passed|failed|error)|Error")}


def _run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def _last(text: str, pattern: str) -> str:
    """The last line in which a pattern is, without decoration."""
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    return re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= ")) if lines else "no result"


def main(_: list[str]) -> None:
    folder = Path(OUTPUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "compatibility.json"
    names = ("python", "tensorflow", "keras", "numpy", "result")
    for pair in PAIRS.value:
        rows = [*(json.loads(record.read_text()) if record.exists() else []), tested(*pair.split(":"))]
        with replacing(record) as path:
            path.write_text(json.dumps(rows, indent=1))
        lines = ["| " + " | ".join(row) + " |" for row in (names, ["---"] * 5, *([r[n] for n in names] for r in rows))]
        with replacing(folder / "table.md") as path:
            path.write_text("\n".join(lines) + "\n")
        print(lines[-1], flush=True)


if __name__ == "__main__":
    app.run(main)
