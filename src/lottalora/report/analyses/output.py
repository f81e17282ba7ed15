"""Analyses on a terminal and in files."""

import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.report.csv_text import csv_text
from lottalora.report.tables import markdown_text
from lottalora.results.rows import without_non_finite


def show(analysis: Analysis, console: Console) -> None:
    """Print the tables of an analysis with their notes."""
    for table in analysis.tables:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for place, heading in enumerate(table.headings):
            grid.add_column(Text(heading), justify="left" if place < table.left else "right", overflow="fold")
        for line in table.lines:
            grid.add_row(*(Text(cell) for cell in line))
        console.print(Text(table.title, style="bold"))
        if table.lines:
            console.print(grid)
        for note in table.notes:
            console.print(Text(note, style="dim"), soft_wrap=True)
        console.print()


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Write FOLDER/NAME.md, .csv and .json, with the folder's name; `report` reads the last.

    Raises:
        OSError: the folder cannot be written; one sentence that names it.
    """
    plain = json.dumps(without_non_finite(asdict(analysis)), ensure_ascii=False, allow_nan=False, indent=1)
    texts = {"md": markdown(analysis), "csv": csv_text(analysis.numbers), "json": f"{plain}\n"}
    paths = [folder / f"{folder.name}.{ending}" for ending in texts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(f"Cannot write to {folder}: {reason}. Choose a folder with --out DIR.") from error
    return paths


def read(path: Path) -> Analysis | None:
    """Read what `write` left as JSON; None where there is nothing, or nothing that can be read."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        tables = [Table(**each) for each in plain["tables"]]
        return Analysis(plain["title"], tables, plain["numbers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def markdown(analysis: Analysis) -> str:
    """Write an analysis as Markdown."""
    parts = [f"# {analysis.title}"]
    for table in analysis.tables:
        parts += [
            f"## {table.title}",
            grid_of(table),
            "  \n".join(markdown_text(note) for note in table.notes),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def grid_of(table: Table) -> str:
    """Return the table as a Markdown grid; "" without lines."""
    if not table.lines:
        return ""
    rule = [":--" if place < table.left else "--:" for place in range(len(table.headings))]
    lines = [table.headings, rule, *table.lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
