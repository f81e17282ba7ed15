"""Blocks on a terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lottalora.messages import counted
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import main_blocks
from lottalora.report.main_blocks import own_arms
from lottalora.report.tables import LEFT
from lottalora.report.tables import cells
from lottalora.report.tables import headings
from lottalora.report.tables import notes

WIDTH = 200  # characters, more than a table needs to keep each condition on one line
# How many a terminal shows in full; where there are more, a part stands for the rest.
TABLES, LINES, FILES = 8, 40, 12
OWN = ("scaffold", "no_scaffold", "zero_scaffold")


def console_for_tables() -> Console:
    """As wide as the terminal; where there is none, as wide as any table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def show_tables(blocks: list[Block], console: Console, *, everything: bool = False) -> None:
    """Print the tables; where there are many, and not `everything` is asked for, one for each benchmark."""
    many = len(blocks) > TABLES and not everything
    shown = main_blocks(blocks) if many else blocks
    for block in shown:
        lines = block.lines
        if many and len(lines) > LINES:
            own = [line for condition in OWN for line in own_arms(block, condition)]
            lines = [line for line in lines if any(line is each for each in own)]
        show(block, console, lines)
    if len(shown) < len(blocks):
        console.print(
            f"Shown: one table for each benchmark, of {len(blocks)}. All are in tables/recovery.md and on "
            "report.html; --all prints them.\n",
            soft_wrap=True,
        )


def files_text(paths: Sequence[Path]) -> list[str]:
    """What was written: the name of each file, or of a folder and how many it holds where these are many."""
    held = Counter(path.parent for path in paths)
    alone = [str(path) for path in paths if held[path.parent] <= FILES]
    return alone + [f"{folder}: {count} files" for folder, count in held.items() if count > FILES]


def show(block: Block, console: Console, lines: Sequence[Line] | None = None) -> None:
    """Print a block's table, as wide as the terminal allows; `lines`: those to show, all by default."""
    lines = block.lines if lines is None else lines
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column, heading in enumerate(headings(block.metric)):
        justify = "left" if column < LEFT else "right"
        table.add_column(narrow(heading), justify=justify, vertical="bottom", overflow="fold", no_wrap=True)
    for line in lines:
        style = "bold" if line.condition == "full" else ""
        table.add_row(*(Text(cell) for cell in cells(line, block.metric)), style=style)
    endless = console.options.update(width=10 * WIDTH)  # a measure is cut at the width of its options
    if console.measure(table, options=endless).maximum > console.width:
        for column in table.columns:  # cells break over lines: no number may be cut off
            column.no_wrap = False
    console.print(Text(block.title, style="bold"))
    console.print(table)
    left_out = len(block.lines) - len(lines)
    more = [f"{counted(left_out, 'more line')}: --all prints them."] * bool(left_out)
    for note in more + notes(block):
        console.print(Text(note, style="dim"))
    console.print()


def narrow(heading: str) -> Text:
    """A heading on several lines, so that a column is as wide as its numbers."""
    for words in (", ", " of ", " + ", " − ", "above "):
        heading = heading.replace(words, f"{words.rstrip()}\n")
    return Text(heading)
