"""Which TensorFlow and Keras the package runs with: a table of pairs, each tested in an environment of its own.

    python tools/compatibility.py --pairs 2.21.0:3.15.1,2.20.0:3.12.0

Each environment is made with the interpreter that runs this script (others: run it with them) under --folder, and is
kept there. Nothing but what pip resolves goes in; the package itself is imported from the checkout, since its own lower
bounds would not let older pairs in. Writes compatibility.json and a table into --output.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from pathlib import Path

from absl import app, flags

from tfmcu_prune.files import replacing
from tfmcu_prune.tables import render

ROOT = Path(__file__).resolve().parent.parent
PAIRS = flags.DEFINE_list("pairs", ["2.21.0:3.15.1"], "TensorFlow and Keras versions, TF:KERAS.")
FOLDER = flags.DEFINE_string("folder", "build/compatibility", "Folder of the environments.")
OUTPUT = flags.DEFINE_string("output", "build/compatibility", "Folder of the table.")
TESTS = flags.DEFINE_list(
    "tests",
    ["tests/test_surgery.py", "tests/test_gates.py", "tests/test_resources.py", "tests/test_callback.py",
     "tests/test_converter.py"],
    "Test files to run.",
)  # fmt: skip
_OTHERS = (
    "absl-py",
    "ai-edge-litert",
    "hypothesis",
    "jinja2",
    "markupsafe",
    "pytest",
    "rich",
    "tflite-micro>=0.dev20261023182759",
)


def tested(tensorflow: str, keras: str) -> dict[str, str]:
    """Make the environment of a pair, run the tests in it, and return a row of the table."""
    row = {"python": platform.python_version(), "tensorflow": tensorflow, "keras": keras, "numpy": ""}
    folder = Path(FOLDER.value) / f"py{row['python']}-tf{tensorflow}-keras{keras}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pins = (f"tensorflow=={tensorflow}", f"keras=={keras}")
    made = _run([str(python), "-m", "pip", "install", "--quiet", *pins, *_OTHERS])
    if made.returncode:
        return {**row, "result": f"pip: {_last(made.stderr, 'ERROR|conflict')}"}
    row["numpy"] = _run([str(python), "-c", "import numpy; print(numpy.__version__)"]).stdout.strip()
    command = [str(python), "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", "-m", "not slow"]
    done = _run([*command, *TESTS.value])
    return {**row, "result": _last(done.stdout + done.stderr, r"\d+ (passed|failed|error)|Error")}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def _last(text: str, pattern: str) -> str:
    """The last line in which a pattern is, without decoration."""
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    return re.sub(r" in [\d.]+s.*", "", lines[-1].strip("= ")) if lines else "no result"


def main(_: list[str]) -> None:
    rows = [tested(*pair.split(":")) for pair in PAIRS.value]
    names = ("python", "tensorflow", "keras", "numpy", "result")
    table = render(names, [tuple(row[name] for name in names) for row in rows])
    print(table)
    with replacing(Path(OUTPUT.value) / "compatibility.json") as path:
        path.write_text(json.dumps(rows, indent=1))
    with replacing(Path(OUTPUT.value) / "table.md") as path:
        path.write_text(f"```\n{table}\n```\n")


if __name__ == "__main__":
    app.run(main)
