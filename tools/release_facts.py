"""Checks an installed release against its archives and its source; run by tools/release_check.sh.

python tools/release_facts.py DIST SOURCE

Writes contents.txt and licences.md into the folder that it runs in. It imports nothing but what the wheel needs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tarfile
import time
import zipfile
from importlib import metadata
from pathlib import Path

IMPORT_S = 0.15
NOT_STATED = "not stated"
_SUFFIXES = {".py", ".jinja", ".json"}
_METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}


def wanted(source: Path) -> set[str]:
    """The files that the wheel should hold of the package."""
    files = (path for path in (source / "tfmcu_prune").rglob("*") if path.is_file())
    return {str(path.relative_to(source)) for path in files if path.suffix in _SUFFIXES or path.name == "py.typed"}


def contents(dist: Path, source: Path) -> list[str]:
    """The names in the wheel, after checking that they are the right ones, and that the sdist can build it."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    extra = {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name}
    package = {name for name in names if ".dist-info/" not in name}
    _require(package == wanted(source), f"the wheel differs by {package ^ wanted(source)}")
    _require(extra == _METADATA, f"the wheel's metadata differ by {extra ^ _METADATA}")
    with tarfile.open(sdist) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    missing = {*wanted(source), "setup.py", "setup.cfg", "README.md", "LICENSE"} - packed
    _require(not missing, f"the sdist lacks {missing}")
    return sorted(names)


def import_seconds() -> float:
    """The median time that `import tfmcu_prune` adds to a new process, numpy and Keras not being imported."""
    return _process_seconds("import tfmcu_prune") - _process_seconds("pass")


def _process_seconds(code: str) -> float:
    taken = []
    for _ in range(15):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", code], check=True)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def licences() -> str:
    """The licence of every installed package as it states it, "not stated" if it does not, as a Markdown table."""
    rows = ["| package | version | licence |", "|---|---|---|"]
    for one in sorted(metadata.distributions(), key=lambda one: one.metadata["Name"].lower()):
        fields = one.metadata
        classifiers = [c.split(" :: ")[-1] for c in fields.get_all("Classifier", ()) if c.startswith("License")]
        stated = fields.get("License-Expression") or ", ".join(classifiers) or fields.get("License") or ""
        licence = stated.strip().splitlines()[0] if stated.strip() else NOT_STATED
        rows.append(f"| {fields['Name']} | {one.version} | {licence} |")
    return "\n".join(rows) + "\n"


def _require(right: bool, message: str) -> None:
    if not right:
        sys.exit(f"error: {message}")


def main() -> None:
    dist, source = map(Path, sys.argv[1:])
    names = contents(dist, source)
    Path("contents.txt").write_text("\n".join(names) + "\n")
    table = licences()
    Path("licences.md").write_text(table)
    import tfmcu_prune

    _require(not Path(tfmcu_prune.__file__).is_relative_to(source), "the source was imported, not the wheel")
    stated = metadata.version("tfmcu-prune")
    _require(stated == tfmcu_prune.__version__, f"versions differ: {stated}, {tfmcu_prune.__version__}")
    command = Path(sys.executable).with_name("tfmcu-prune")
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    _require(said.endswith(f" {stated}"), f"the command says {said!r}")
    seconds = import_seconds()
    silent = [row.split(" ")[1] for row in table.splitlines() if row.endswith(f"| {NOT_STATED} |")]
    print(f"{said}: {len(names)} files in the wheel, import in {seconds:.3f} s")
    print(f"{len(table.splitlines()) - 2} licences in licences.md; not stated: {', '.join(silent) or 'none'}")
    _require(seconds < IMPORT_S, f"the import takes {seconds:.3f} s; at most {IMPORT_S} s")


if __name__ == "__main__":
    main()
