"""Makes Keras know the layers in files of gated models once it is imported, without importing it for that.

`keras.saving.load_model` finds a custom class only if its module has been imported. `import tfmcu_prune` must not pay
the seconds of `import keras`, so the layers follow Keras: right now where it is imported, otherwise right after it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

LAYERS = "tfmcu_prune.gates"


class _AfterKeras:
    """A finder of `sys.meta_path` that leaves the finding of Keras to the others and imports the layers after it."""

    asking = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "keras" or self.asking:
            return None
        self.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                sys.meta_path.remove(self)
                execute(module)
                importlib.import_module(LAYERS)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_layers() -> None:
    """Import the Keras layers of the package as soon as Keras is imported."""
    if "keras" in sys.modules:
        importlib.import_module(LAYERS)
    else:
        sys.meta_path.insert(0, _AfterKeras())
