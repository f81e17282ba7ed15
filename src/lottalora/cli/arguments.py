"""Arguments that several commands share: the overrides of a sweep, --results, --json."""

import argparse
import json
import sys
from pathlib import Path

from lottalora.messages import run_command
from lottalora.results.command import literal


def add_overrides(parser: argparse.ArgumentParser, *, none: str | None = None) -> None:
    """Add the overrides that `run.py -m` would take, and --results.

    Args:
        parser: of the command.
        none: what an empty list of overrides means; None: it is refused.
    """
    meaning = "as for run.py -m, such as sweeps=table14 or rank=1,2,4"
    parser.add_argument(
        "overrides",
        nargs="*" if none else "+",
        metavar="KEY=VALUE",
        help=f"{meaning}; none: {none}" if none else meaning,
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="the same as paths.results=DIR")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def overrides_of(asked: argparse.Namespace) -> list[str]:
    """Return the overrides, and --results as the override that it is."""
    return [*asked.overrides, *([f"paths.results={literal(str(asked.results))}"] if asked.results else [])]


def print_json(found: dict) -> None:
    """Print plain data as indented JSON."""
    sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def readable_rows(results: Path) -> tuple[list, list[str]]:
    """All rows; those that cannot be read are named on stderr. None at all is an error."""
    from lottalora.results import rows

    found, problems = rows.read_all(results)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not found:
        readable = "readable " if problems else ""
        raise FileNotFoundError(f"No {readable}rows in {results / 'rows'}. {way_out()}")
    return found, problems


def check_results(results: Path) -> None:
    """Refuse a results folder that does not exist; one without rows passes."""
    if not results.is_dir():
        raise FileNotFoundError(f"There is no folder {results}. {way_out()}")


def way_out() -> str:
    """What to type where there are no rows."""
    return (
        f"Make one: {run_command()} model=mlp data=digits rank=8, or name another folder with --results DIR."
    )
