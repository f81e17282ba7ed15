"""What one option changes: each arm against the scaffold of its block and rank, over common seeds."""

import math
from collections.abc import Iterable

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.statistics import Paired
from lottalora.analysis.statistics import holm
from lottalora.analysis.statistics import paired
from lottalora.report.analyses.statistics import count
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.arms import line_name
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.number_text import limits
from lottalora.report.number_text import p_text
from lottalora.report.number_text import signed
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.spread import Spread
from lottalora.report.pictures.spread import spread_pictures

HEADINGS = [*ARM, "pairs", "scaffold", "arm", "arm − scaffold", "95 % interval", "p, Holm", "d"]


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Compare each arm with the plain scaffold, Holm-corrected over each table."""
    tables, numbers = [], []
    for block in blocks:
        compared, refused = comparisons(block)
        if not compared:
            continue
        adjusted = holm([tests.p for _, tests in compared])
        lines = []
        for (line, tests), p in zip(compared, adjusted, strict=True):
            numbers.append(number_line(block, line, tests, p))
            lines.append([*arm_cells(line), *cells(block, tests, p)])
        tables.append(Table(block.title, HEADINGS, len(ARM), lines, NOTES + refused))
    if not tables:
        raise ValueError(
            "No arm has a scaffold of its rank to be compared with. Make them: python run.py -m "
            "mode=scaffold adapter.B_init=zeros,kaiming"
        )
    return Analysis("Effects of one option", tables, numbers)


SPREAD = Spread(
    "effects",
    "each arm against the scaffold of its rank",
    ("difference", "low", "high"),
    lambda metric: f"arm − scaffold, {metric.label}",
    "Paired over seeds; bars: 95 % intervals, from three pairs on. The dotted line: no difference.",
    at=0.0,
    scaled=True,
)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """A picture for each block."""
    return spread_pictures(blocks, found, SPREAD)


NOTES = [
    "Paired over training seeds: both scores are means over the pairs. Holm: over the t-tests of this table. "
    "Below three pairs there is neither interval nor test, and the difference is that of the runs."
]


def comparisons(block: Block) -> tuple[list[tuple[Line, Paired]], list[str]]:
    """Each arm with the plain scaffold of its rank; and a sentence for each that shares no seed with it."""
    plain = {line.rank: line for line in block.lines if is_plain(block, line)}
    found, refused = [], []
    for line in block.lines:
        scaffold = plain.get(line.rank)
        if scaffold is None or line is scaffold or line.condition == "full":
            continue
        try:
            tests = paired(line.by_seed, scaffold.by_seed, (line_name(line), "the scaffold"))
        except ValueError as error:
            refused.append(str(error))
            continue
        found.append((line, tests))
    return found, refused


def is_plain(block: Block, line: Line) -> bool:
    """Whether a line is the plain scaffold: no option changed, and its benchmark's init if there is one."""
    benchmark = BENCHMARKS.get((block.model, block.data))
    same_init = benchmark is None or line.init == benchmark.init
    return line.condition == "scaffold" and same_init and not line.adapter and not line.options


def cells(block: Block, tests: Paired, p: float) -> list[str]:
    """Format one comparison."""
    metric, difference = block.metric, tests.difference
    return [
        count(difference),
        metric.text(tests.second),
        metric.text(tests.first),
        signed(difference.mean, metric),
        limits(difference, metric),
        p_text(p),
        "–" if math.isnan(tests.cohen_d) else f"{tests.cohen_d:+.2f}",
    ]


def number_line(block: Block, line: Line, tests: Paired, p: float) -> dict:
    """Return one comparison, unrounded."""
    difference = tests.difference
    return {
        "block": block.title,
        "metric": block.metric.name,
        **arm_columns(block, line),
        "pairs": difference.n,
        "diverged": difference.diverged,
        "scaffold": tests.second,
        "score": tests.first,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "t_p": tests.p,
        "t_p_holm": p,
        "cohen_d": tests.cohen_d,
    }
