"""Blocks on a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lottalora.report.blocks import Block
from lottalora.report.tables import LEFT
from lottalora.report.tables import cells
from lottalora.report.tables import headings
from lottalora.report.tables import notes

WIDTH = 200  # characters, more than a table needs to keep each condition on one line


def console_for_tables() -> Console:
    """As wide as the terminal; where there is none, as wide as any table."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def show(block: Block, console: Console) -> None:
    """Print a block's table, as wide as the terminal allows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column, heading in enumerate(headings(block.metric)):
        justify = "left" if column < LEFT else "right"
        table.add_column(narrow(heading), justify=justify, vertical="bottom", overflow="fold", no_wrap=True)
    for line in block.lines:
        style = "bold" if line.condition == "full" else ""
        table.add_row(*(Text(cell) for cell in cells(line, block.metric)), style=style)
    endless = console.options.update(width=10 * WIDTH)  # a measure is cut at the width of its options
    if console.measure(table, options=endless).maximum > console.width:
        for column in table.columns:  # cells break over lines: no number may be cut off
            column.no_wrap = False
    console.print(Text(block.title, style="bold"))
    console.print(table)
    for note in notes(block):
        console.print(Text(note, style="dim"))
    console.print()


def narrow(heading: str) -> Text:
    """A heading on several lines, so that a column is as wide as its numbers."""
    for words in (", ", " of ", " + ", " − ", "above "):
        heading = heading.replace(words, f"{words.rstrip()}\n")
    return Text(heading)
