"""How tables, legends and CSV name an arm: a condition at one rank."""

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line

ARM = ["arm", "W_seed, options", "rank"]
KEYS = ("condition", "adapter", "init", "options", "rank")


def arm_columns(block: Block, line: Line) -> dict:
    """Return the columns of a CSV that name an arm."""
    return {"block": block.title, "arm": line_name(line), **{key: getattr(line, key) for key in KEYS}}


def arm_cells(line: Line) -> list[str]:
    """Return the cells that name an arm."""
    return [line.label, line.scaffold_text, "–" if line.rank is None else str(line.rank)]


def line_name(line: Line) -> str:
    """Name an arm in one phrase."""
    rank = "" if line.rank is None else f"r = {line.rank}"
    scaffold = "" if line.scaffold_text == "–" else line.scaffold_text
    return ", ".join(part for part in (line.label, scaffold, rank) if part)
