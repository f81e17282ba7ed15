"""Helpers for messages, without imports from the package."""

import difflib
from collections.abc import Iterable
from pathlib import Path


def run_command() -> str:
    """Return how runs are started here: by run.py where the folder has one, else by the installed command."""
    return "python run.py" if Path("run.py").exists() else "lottalora run"


def counted(number: int, thing: str) -> str:
    """1 run, 2 runs, 3,000 runs."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def flatten(container: dict, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} → {"a.b": 1}; an empty mapping stays a value."""
    flat = {}
    for key, value in container.items():
        deeper = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return flat


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """All known names, those that resemble `name` first, the rest sorted."""
    near = difflib.get_close_matches(name, known := sorted(known), n=3, cutoff=0.5)
    return near + [each for each in known if each not in near]


def printable(text: str) -> str:
    """A text from a file, with escapes for what a terminal would obey or show as another line."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message, usually its reason; its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
