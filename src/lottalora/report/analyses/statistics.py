"""Each arm of each block: its interval, its match with the paper, and tests against full training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace

from lottalora.analysis.equivalence import Equivalence
from lottalora.analysis.equivalence import paired_equivalence
from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.statistics import FEWEST
from lottalora.analysis.statistics import Interval
from lottalora.analysis.statistics import Paired
from lottalora.analysis.statistics import holm
from lottalora.analysis.statistics import paired
from lottalora.analysis.statistics import power
from lottalora.analysis.statistics import seeds_needed
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import line_name
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.number_text import limits
from lottalora.report.number_text import margin_text
from lottalora.report.number_text import p_text
from lottalora.report.number_text import signed
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.spread import Spread
from lottalora.report.pictures.spread import spread_pictures

BESIDE_PAPER = ["n", "mean ± std", "95 % interval", "paper", "ours − paper", "TOST p", "verdict"]
BESIDE_FULL = [
    "pairs", "arm − full", "95 % interval", "d", "t-test p", "p, Holm", "Wilcoxon p", "TOST p", "verdict",
    "power", "n for 80 %",
]  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One arm against full training of its block; NaN and None where it does not exist."""

    tests: Paired
    holm_p: float
    match: Equivalence
    power: float  # to find a difference as large as the margin
    seeds_needed: int | None  # for a power of 80 %


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Test every arm against full training and the paper."""
    tables, numbers = [], []
    for block in blocks:
        compared, refused = comparisons(block)
        tables.append(paper_table(block))
        if block.baseline is not None and len(block.lines) > 1:
            tables.append(full_table(block, compared, refused))
        numbers += [number_line(block, line, compared.get(place)) for place, line in enumerate(block.lines)]
    return Analysis("Statistics", tables, numbers)


SPREAD = Spread(
    "statistics",
    "each arm against full training",
    ("full_difference", "full_low", "full_high"),
    lambda metric: f"arm − full training, {metric.label}",
    "Paired over seeds; bars: 95 % intervals, from three pairs on. The dotted line: no difference.",
    at=0.0,
    scaled=True,
)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """A picture for each block."""
    return spread_pictures(blocks, found, SPREAD)


def comparisons(block: Block) -> tuple[dict[int, Comparison], list[str]]:
    """By place in block.lines; and a sentence for each arm that shares no seed with full training."""
    full = block.baseline
    tests, matches, refused = {}, {}, []
    for place, line in enumerate(block.lines):
        if full is None or line.condition == "full":
            continue
        arms, names = (line.by_seed, full.by_seed), (line_name(line), "full training")
        try:
            tests[place] = paired(*arms, names)
            matches[place] = paired_equivalence(*arms, block.metric.margin, names)
        except ValueError as error:
            refused.append(str(error))
    adjusted = holm([found.p for found in tests.values()])
    compared = {
        place: comparison(tests[place], p, matches[place]) for place, p in zip(tests, adjusted, strict=True)
    }
    return compared, refused


def comparison(tests: Paired, holm_p: float, match: Equivalence) -> Comparison:
    """Complete the paired tests of an arm with its verdict and power."""
    n, std = tests.difference.n, tests.difference.std
    effect = match.margin / std if n >= FEWEST and std > 0 else math.nan
    match = replace(match, difference_p=holm_p)
    return Comparison(tests, holm_p, match, power(effect, n), seeds_needed(effect))


def paper_table(block: Block) -> Table:
    """Return the table of arms beside the paper."""
    lines = []
    for line in block.lines:
        scores, test = line.scores, line.beside_paper
        mean = block.metric.text(scores.mean)
        spread = "" if math.isnan(scores.std) else f" ± {block.metric.text(scores.std)}"
        beside = ["–", "–", "–", "–"] if test is None else paper_cells(line, test, block)
        cells = [count(scores), f"{mean}{spread}", limits(scores, block.metric), *beside]
        lines.append([*arm_cells(line), *cells])
    return Table(block.title, ARM + BESIDE_PAPER, len(ARM), lines, paper_notes(block))


def paper_cells(line: Line, test: Equivalence, block: Block) -> list[str]:
    """Format an arm's test against the paper."""
    return [
        block.metric.text(line.paper.mean),
        signed(test.difference, block.metric),
        p_text(test.p),
        line.verdict or "–",
    ]


def paper_notes(block: Block) -> list[str]:
    """Say which intervals and tests the table has."""
    scores = f"{block.metric.of_part}, {block.metric.unit}" if block.metric.unit else block.metric.of_part
    methods = sorted({line.scores.method for line in block.lines if not math.isnan(line.scores.low)})
    by = f" Intervals of the mean by {' or '.join(methods)}." if methods else ""
    notes = [f"Scores: {scores}.{by}"]
    if any(line.beside_paper for line in block.lines):
        notes.append(
            f"TOST against the paper's mean, margin {margin_text(block.metric)}, each arm by itself: Welch's "
            "where the paper gives a deviation and its seeds, else one-sample, as if its mean were exact."
        )
    few = sum(line.scores.n < FEWEST for line in block.lines)
    if few:
        notes.append(
            f"Arms without an interval or a test, for n < {FEWEST}: {few} of {len(block.lines)}. "
            "More seeds give one: -m seed=42,43,44,45,46."
        )
    equal = sum(line.scores.n >= FEWEST and math.isnan(line.scores.low) for line in block.lines)
    if equal:
        notes.append(f"Arms without an interval because all scores are equal: {equal}.")
    if diverged := sum(line.scores.diverged for line in block.lines if line.condition != "no_scaffold"):
        notes.append(f"Diverged runs, in no number: {diverged}.")
    if block.baseline is None:
        notes.append("No full training under this recipe to compare with: run it with mode=baseline.")
    return notes


def full_table(block: Block, compared: dict[int, Comparison], refused: list[str]) -> Table:
    """Return the table of arms against full training."""
    lines = [
        [*arm_cells(line), *full_cells(compared[place], block)]
        for place, line in enumerate(block.lines)
        if place in compared
    ]
    title = f"{block.title}: against full training, over common seeds"
    return Table(title, ARM + BESIDE_FULL, len(ARM), lines, full_notes(block, compared, refused))


def full_cells(found: Comparison, block: Block) -> list[str]:
    """Format an arm's tests against full training."""
    tests, metric = found.tests, block.metric
    wilcoxon = "–"
    if not math.isnan(tests.wilcoxon_p):
        wilcoxon = f"{p_text(tests.wilcoxon_p)} (least {p_text(tests.wilcoxon_least_p)})"
    return [
        count(tests.difference),
        signed(tests.difference.mean, metric),
        limits(tests.difference, metric),
        "–" if math.isnan(tests.cohen_d) else f"{tests.cohen_d:+.2f}",
        p_text(tests.p),
        p_text(found.holm_p),
        wilcoxon,
        p_text(found.match.p),
        found.match.verdict or "–",
        "–" if math.isnan(found.power) else f"{100 * found.power:.0f} %",
        "–" if found.seeds_needed is None else f"{found.seeds_needed:,}",
    ]


def full_notes(block: Block, compared: dict[int, Comparison], refused: list[str]) -> list[str]:
    """Say which tests the table has, and which pairs were refused."""
    tests = [found.tests for found in compared.values()]
    tested = sum(not math.isnan(found.p) for found in tests)
    notes = [
        "Paired over training seeds, each with the scaffold of its own number if it has one; d: Cohen's, of "
        f"the differences; Holm: over the {tested} t-tests here; Wilcoxon: with the least p that so many "
        "pairs can give."
    ]
    if not math.isnan(block.metric.margin):
        notes.append(
            f"TOST, power and n for 80 %: margin {margin_text(block.metric)}. Verdict: agrees by TOST, else "
            "above or below by the t-test after Holm, else undecided. Power: of the paired t-test for a "
            "difference as large as the margin, with the deviation seen here."
        )
    counts = {
        "Pairs with a diverged run, in no number": sum(found.difference.diverged for found in tests),
        "Pairs with equal scores": sum(found.ties for found in tests),
        "Seeds of one arm only": sum(found.unpaired for found in tests),
    }
    return notes + [f"{what}: {number}." for what, number in counts.items() if number] + refused


def number_line(block: Block, line: Line, found: Comparison | None) -> dict:
    """One arm, unrounded, in the unit of rows."""
    scores, paper = line.scores, line.beside_paper
    tests, match = (found.tests, found.match) if found else (None, None)
    difference = tests.difference if tests else None
    return {
        "block": block.title,
        "arm": line_name(line),
        "metric": block.metric.name,
        **{key: getattr(line, key) for key in ("condition", "adapter", "init", "options", "rank", "alpha")},
        **{key: getattr(scores, key) for key in ("n", "diverged", "mean", "std", "low", "high", "method")},
        "margin": block.metric.margin,
        "paper": line.paper.mean if paper else None,
        "paper_difference": paper and paper.difference,
        "paper_tost_p": paper and paper.p,
        "paper_verdict": line.verdict,
        "pairs": difference and difference.n,
        "pairs_diverged": difference and difference.diverged,
        "ties": tests and tests.ties,
        "unpaired": tests and tests.unpaired,
        "full_difference": difference and difference.mean,
        "full_low": difference and difference.low,
        "full_high": difference and difference.high,
        "cohen_d": tests and tests.cohen_d,
        "t_p": tests and tests.p,
        "t_p_holm": found and found.holm_p,
        "wilcoxon_p": tests and tests.wilcoxon_p,
        "wilcoxon_least_p": tests and tests.wilcoxon_least_p,
        "full_tost_p": match and match.p,
        "full_verdict": match and match.verdict,
        "power": found and found.power,
        "seeds_needed": found and found.seeds_needed,
    }


def count(found: Interval) -> str:
    """Return n, with the number of diverged runs."""
    return f"{found.n} (+{found.diverged} diverged)" if found.diverged else str(found.n)
