"""The curves of a block: one condition over ranks."""

import itertools
from dataclasses import dataclass

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import leading_init
from lottalora.report.pictures.palette import CONTROLS
from lottalora.report.pictures.palette import marker_of

MANY = 16  # arms, from which on those of single runs have no curve
OPTION_MARKERS = ("^", "v", "s", "p", "<", ">", "h", "d", "P")  # hollow, one for each set of options


@dataclass(frozen=True)
class Curve:
    """One condition over ranks."""

    label: str
    lines: list[Line]  # by rank
    marker: str

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def key(self) -> str:
        return self.label

    @property
    def is_control(self) -> bool:
        return self.first.condition in CONTROLS


def curves_of(block: Block) -> list[Curve]:
    """The arms on the recipe's scaffold, its own first. Other families have a picture of their own."""
    curves = arms_of(block)
    if len(curves) > MANY:
        curves = {label: lines for label, lines in curves.items() if not has_single_runs(lines)}
    options = list(dict.fromkeys(lines[0].options_text for lines in curves.values() if lines[0].options))
    markers = dict(zip(options, itertools.cycle(OPTION_MARKERS)))
    found = [
        Curve(label, lines, markers.get(lines[0].options_text) or marker_of(lines[0]))
        for label, lines in curves.items()
    ]
    return sorted(found, key=lambda curve: (bool(curve.first.options), curve.is_control))


def arms_of(block: Block) -> dict[str, list[Line]]:
    """Lines by the label of their arm."""
    init = leading_init(block)
    arms: dict[str, list[Line]] = {}
    for line in block.lines:
        if line.rank and line.init in ("", init):
            label = ", ".join(word for word in (line.label, line.options_text) if word)
            arms.setdefault(label, []).append(line)
    return arms


def has_single_runs(lines: list[Line]) -> bool:
    """Whether a variation of an arm was run once at each of its ranks."""
    varied = bool(lines[0].options or lines[0].adapter)
    return varied and all(len(line.runs) == 1 for line in lines)


def ranks_of(curves: list[Curve]) -> list[int]:
    """Return the ranks of all curves, sorted."""
    return sorted({line.rank for curve in curves for line in curve.lines})


def shown(block: Block, score: float) -> float:
    """Return a score in the unit that is shown."""
    return score * block.metric.scale
