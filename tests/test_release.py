"""What a release is made of; tools/release_check.sh builds and installs one."""

from __future__ import annotations

import configparser
import fnmatch
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import tfmcu_prune

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tfmcu_prune"
PINS = ROOT / "tools" / "benchmark_environment.txt"
HEAVY = {"absl", "ai_edge_litert", "jinja2", "keras", "matplotlib", "numpy", "rich", "tensorflow"}


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read(ROOT / "setup.cfg")
    return parser


def _name(requirement: str) -> str:
    return re.split(r"[\[=<>~! ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_the_version_stands_in_one_place(config) -> None:
    assert config["metadata"]["version"] == "attr: tfmcu_prune.__version__"
    quoted = re.compile(rf"[\"']{re.escape(tfmcu_prune.__version__)}[\"']")
    files = [ROOT / "setup.py", ROOT / "setup.cfg", *PACKAGE.rglob("*.py")]
    assert [path.name for path in files if quoted.search(path.read_text())] == ["__init__.py"]


def test_the_wheel_holds_every_file_of_the_package(config) -> None:
    wanted = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    found = {
        path
        for package, patterns in config["options.package_data"].items()
        for path in ROOT.joinpath(*package.split(".")).rglob("*")
        for pattern in patterns.split()
        if fnmatch.fnmatch(str(path.relative_to(ROOT.joinpath(*package.split(".")))), pattern)
    }
    assert found == wanted


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    holders = {path.parent for path in PACKAGE.rglob("*.jinja")} - {PACKAGE / "reporting" / "templates"}
    assert all((folder / "__init__.py").exists() for folder in folders | holders)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, tfmcu_prune; print(*({HEAVY!r} & {{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_the_environment_of_the_benchmarks_is_pinned_and_meets_the_requirements(config) -> None:
    lines = [line for line in PINS.read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+-]+", line) for line in lines)
    extras = config["options.extras_require"]
    required = [config["options"]["install_requires"], *(extras[name] for name in ("runtime", "qat", "report", "demo"))]
    wanted = [line for text in required for line in text.split("\n") if line and not line.startswith("#")]
    assert {_name(line) for line in wanted} <= {_name(line) for line in lines}


def test_the_metadata_name_the_command() -> None:
    (script,) = [one for one in metadata.entry_points(group="console_scripts") if one.name == "tfmcu-prune"]
    assert script.value == "tfmcu_prune.cli:main"
