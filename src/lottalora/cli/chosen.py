"""Words that choose rows, as they are typed for a run: model=mlp data=mnist."""

import argparse
import difflib
from collections.abc import Iterable

from lottalora.results.rows import Row

COLUMNS = {"model": "model", "model.size": "size", "data": "data", "recipe_name": "recipe"}  # of a row


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the words that choose rows."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help=f"only rows with these values of {', '.join(COLUMNS)}; then no file is written",
    )


def chosen(rows: list[Row], words: Iterable[str]) -> list[Row]:
    """The rows that have all of these values.

    Raises:
        ValueError: a word names no such key, or no row has its value; the message says which ones there are.
    """
    for word in words:
        key, _, value = word.partition("=")
        if key not in COLUMNS or not value:
            raise ValueError(f"{word!r} chooses no rows. Type KEY=VALUE, with one of {', '.join(COLUMNS)}.")
        found = [row for row in rows if row[COLUMNS[key]] == value]
        if not found:
            known = sorted({row[COLUMNS[key]] for row in rows})
            near = difflib.get_close_matches(value, known, n=1)
            meant = f" Did you mean {key}={near[0]}?" if near else ""
            raise ValueError(f"No row has {word}.{meant} Known: {', '.join(known) or 'none'}.")
        rows = found
    return rows


def refuse_files(asked: argparse.Namespace, *options: str) -> None:
    """Raise ValueError for an option about files, where words choose rows and none is written."""
    given = [f"--{option}" for option in options if getattr(asked, option)]
    if asked.overrides and given:
        raise ValueError(f"{given[0]} is for files, and with {asked.overrides[0]} none is written.")
