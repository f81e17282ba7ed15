"""The result of an analysis: tables to read, and the same numbers as lines for CSV."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as people read them; – where a number does not exist.

    Args:
        title: above the table.
        headings: of the columns.
        left: how many of the first columns hold words; the others hold numbers.
        lines: of cells, as many as headings.
        notes: what a reader must know besides the numbers.
    """

    title: str
    headings: list[str]
    left: int
    lines: list[list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Analysis:
    """The tables of one analysis, and the same numbers unrounded."""

    title: str
    tables: list[Table]
    numbers: list[dict]
