"""What `lottalora doctor` finds of one thing, and the versions of packages."""

import importlib.metadata
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Args:
        name: of the thing.
        state: "ok", "note" (some uses are not possible) or "broken" (no run is possible).
        found: what was seen.
        remedy: what to do where it is not ok.
    """

    name: str
    state: str
    found: str
    remedy: str = ""


def version(package: str) -> str | None:
    """Return a package's version, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
