"""How the command line and the tools start and fail: quietly, and with one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from tfmcu_prune.errors import BudgetError
from tfmcu_prune.tables import printable

DOES_NOT_FIT, BAD_INPUT = 1, 2

_Args = TypeVar("_Args")


def guarded(run: Callable[[_Args], int | None], args: _Args) -> int:
    """Run a command and return its exit code; what a user can mend is told in one line on standard error.

    Exit codes: 0 done, 1 a model or a budget does not fit, 2 bad input or a package that is missing.
    """
    try:
        return run(args) or 0
    except BrokenPipeError:  # `tfmcu-prune boards | head`: whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BudgetError as error:
        return _fail(error, DOES_NOT_FIT)
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return _fail(error, BAD_INPUT)


def _fail(error: Exception, code: int) -> int:
    sys.stdout.flush()
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    print(f"tfmcu-prune: error: {printable(text)}", file=sys.stderr)
    return code


def import_keras_quietly() -> None:
    """Import Keras without the lines that TensorFlow's libraries write to standard error while they load.

    Two of them come before any log level is read, so the file descriptor itself points elsewhere meanwhile.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras  # noqa: F401
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def progress() -> int:
    """Return the `verbose` of `fit` that suits standard output: a progress bar, or one line an epoch in a log."""
    return 1 if sys.stdout.isatty() else 2
