"""How tables, legends and CSV name an arm: a condition at one rank."""

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line

ARM = ["arm", "init", "rank"]
KEYS = ("condition", "adapter", "init", "options", "rank")


def arm_columns(block: Block, line: Line) -> dict:
    """Return the columns of a CSV that name an arm."""
    return {"block": block.title, **{key: getattr(line, key) for key in KEYS}}


def arm_cells(line: Line) -> list[str]:
    """Return the cells that name an arm."""
    init = ", ".join(part for part in (line.init, line.options) if part) or "–"
    return [line.label, init, "–" if line.rank is None else str(line.rank)]


def line_name(line: Line) -> str:
    """Name an arm in one phrase."""
    rank = "" if line.rank is None else f", r = {line.rank}"
    return f"{line.label}{', ' + line.init if line.init else ''}{rank}"
