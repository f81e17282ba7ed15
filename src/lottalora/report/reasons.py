"""Why our number for a cell of the paper differs, in a sentence: reasons.toml."""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from lottalora.report.paper_cells import Cell


@dataclass(frozen=True)
class Reason:
    """One reason and the cells that it covers; an empty list covers all.

    Args:
        name: of two or three words.
        sentence: what explains the difference, or that it is open.
        finding: the heading of docs/findings.md that says more.
        tables: the paper's numbers of them.
        conditions: as in paper.csv, as are metrics.
        ranks: r.
    """

    name: str
    sentence: str
    finding: str
    tables: Sequence[str]
    conditions: Sequence[str]
    ranks: Sequence[int] = ()
    metrics: Sequence[str] = ()

    def covers(self, cell: Cell) -> bool:
        line = cell.line
        return (
            line["table"] in self.tables
            and line["condition"] in self.conditions
            and (not self.ranks or cell.rank in self.ranks)
            and (not self.metrics or line["metric"] in self.metrics)
        )

    @property
    def link(self) -> str:
        """Markdown, from a page beside the findings."""
        return f"[{self.name}](findings.md#{anchor(self.finding)})"


def reason_of(cell: Cell) -> Reason | None:
    """The first reason that covers the cell; None if none does."""
    return next((reason for reason in reasons() if reason.covers(cell)), None)


@cache
def reasons() -> tuple[Reason, ...]:
    """All of the file, in its order."""
    text = resources.files("lottalora.report").joinpath("reasons.toml").read_text(encoding="utf-8")
    return tuple(Reason(name, **fields) for name, fields in tomllib.loads(text).items())


def anchor(heading: str) -> str:
    """The fragment by which a Markdown heading is reached, on GitHub as on the site."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
