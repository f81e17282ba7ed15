"""What the page is made of, as plain data: whoever makes a section needs no HTML."""

from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from lottalora.analysis.result import Table
from lottalora.report.blocks import Block
from lottalora.report.pictures.picture import Picture


@dataclass(frozen=True)
class Part:
    """Pictures and tables under a heading of their own, folded until somebody asks for them."""

    title: str
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Args:
        anchor: its address within the page.
        title: its heading.
        short: the same for the list of sections.
        state: a word or two beside the heading, such as "shortened"; mostly "".
        counts: whether its runs are of the paper's protocol; others are shown smaller.
        sentences: paragraphs at its head.
        command: what to type for it, where there is nothing to show.
        pictures, tables: shown.
        parts: folded away.
    """

    anchor: str
    title: str
    short: str = ""
    state: str = ""
    counts: bool = True
    sentences: list[str] = field(default_factory=list)
    command: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class Shown:
    """What sections are made from: the blocks, and the name that each one's files bear."""

    blocks: list[Block]
    names: dict[int, str]  # id of a block → the name
    results: Path | None = None  # the folder that may hold analyses/

    def name(self, kind: str, block: Block) -> str:
        return f"{kind}_{self.names[id(block)]}"
