"""Print one line, not a traceback, for Ctrl-C and for a missing package, wherever they are raised.

Needs nothing but Python, so that it holds while everything else is imported.
"""

import os
import sys
import types

STOPPED_BY_HAND = 130  # exit code: 128 + SIGINT
SHOW_ALL = "LOTTALORA_TRACEBACK"
EXTRAS = {"onnx": "export", "onnxscript": "export", "onnxruntime": "export", "peft": "export"}  # else: suite


def install() -> None:
    """Show both in one line from here on, where nothing catches them."""
    sys.excepthook = show


def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print an uncaught error in one line, or as a traceback if it is a bug (`sys.excepthook`)."""
    line = None if os.environ.get(SHOW_ALL) else one_line(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"{line}\n")


def one_line(error: BaseException) -> str | None:
    """The line for Ctrl-C or for a package that is not installed; None for any other error."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C. Repeat the command to go on."
    missing = missing_package(error)
    return missing and f"error: {missing}"


def missing_package(error: BaseException | None) -> str | None:
    """Return the line that names a missing third-party package and how to install it, or None."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    if package == "lottalora":
        return None
    extra = EXTRAS.get(package, "suite")
    return f"The package {package} is missing. Type: pip install 'lottalora[{extra}]'"
