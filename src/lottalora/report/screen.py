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

WIDTH = 120  # characters, where the output is no terminal: a table cut to 80 would lose its numbers


def console_for_tables() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def show(block: Block, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column, heading in enumerate(headings(block.metric)):
        table.add_column(Text(heading), justify="left" if column < LEFT else "right", vertical="bottom")
    for line in block.lines:
        table.add_row(
            *(Text(cell, no_wrap=False) for cell in cells(line, block.metric)),
            style="bold" if line.condition == "full" else "",
        )
    console.print(Text(block.title, style="bold"))
    console.print(table)
    for note in notes(block):
        console.print(Text(note, style="dim"))
    console.print()
