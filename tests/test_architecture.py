"""The module table of CONTRIBUTING.md against the imports that the package really has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tfmcu_prune"
HEAVY = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization"}


def _table() -> list[str]:
    """Names of the modules in the order of the table."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(r"^\| `([\w./]+)` \|", text, flags=re.MULTILINE)


def _modules() -> list[str]:
    """Every module of the package, named as in the table: `cli.py`, and `tflm/` for all that is in it."""
    paths = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted({str(path) if path.parent == Path() else f"{path.parts[0]}/" for path in paths})


def _files(module: str) -> list[Path]:
    return sorted((PACKAGE / module).glob("*.py")) if module.endswith("/") else [PACKAGE / module]


def _imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in it the import stands."""
    package = ("tfmcu_prune", *path.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return names


def _own(name: str) -> str | None:
    """The module of the table that a dotted name stands in; `None` for other packages."""
    parts = name.split(".")
    if parts[0] != "tfmcu_prune":
        return None
    if len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
        return f"{parts[1]}/"
    if len(parts) > 1 and (PACKAGE / f"{parts[1]}.py").exists():
        return f"{parts[1]}.py"
    return "__init__.py"


def test_every_module_stands_in_the_table_once():
    assert sorted(_table()) == _modules()


@pytest.mark.parametrize("module", _modules())
def test_imports_go_only_upwards(module):
    order = _table()
    used = {_own(name) for path in _files(module) for name in _imports(path)} - {None, module}
    below = {other for other in used if order.index(other) > order.index(module)}
    assert not below, f"{module} imports {below}, which stand below it in CONTRIBUTING.md"


@pytest.mark.parametrize("module", _modules())
def test_tensorflow_is_imported_by_the_converter_alone(module):
    used = {name.split(".")[0] for path in _files(module) for name in _imports(path)}
    assert "tensorflow" not in used or module == "converter/"


def test_the_tflite_half_knows_neither_keras_nor_tensorflow():
    used = {name for path in _files("tflm/") for name in _imports(path)}
    assert not {name for name in used if name.split(".")[0] in HEAVY}


PRIVATE = ("keras.src", "keras._", "tensorflow.python", "tensorflow._", "tf_keras.src")
# Keras tells in no public way which variables an optimizer excludes from weight decay, and TensorFlow has no public
# switch for one scale a channel in dense layers.
STATED = {
    ("converter/", "_experimental_disable_per_channel_quantization_for_dense_layers"),
    ("shrinking.py", "_exclude_from_weight_decay"),
    ("shrinking.py", "_exclude_from_weight_decay_pattern"),
}


def _private_names(path: Path) -> set[str]:
    """Attributes with one underscore in front, of anything but `self`, `cls` and `os`, written out or in a getattr."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id in OWN):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ACCESS:
            names.update(a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
    return {name for name in names if re.match("_(?!_)", name)}


OWN, ACCESS = {"self", "cls", "os"}, {"getattr", "setattr", "hasattr", "delattr"}


@pytest.mark.parametrize("module", _modules())
def test_nothing_private_of_keras_or_tensorflow_is_used(module):
    for path in _files(module):
        assert not {name for name in _imports(path) if name.startswith(PRIVATE)}, path
        assert not re.findall(r"\b(?:keras\.src|tensorflow\.python)\b", path.read_text()), path
        assert not {(module, name) for name in _private_names(path)} - STATED, path


def test_every_stated_exception_is_still_needed():
    modules = sorted({module for module, _ in STATED})
    used = {(module, name) for module in modules for path in _files(module) for name in _private_names(path)}
    assert used == STATED
