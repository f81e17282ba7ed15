"""The control of equal budget: a scaffold beside a narrow net that trains as many weights, all of its own."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.metrics import Metric
from lottalora.analysis.result import Table
from lottalora.analysis.statistics import Paired
from lottalora.analysis.statistics import paired
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import is_shortened
from lottalora.report.main_blocks import leading_init
from lottalora.report.number_text import signed
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown

RANKS = (1, 8)
PAIRS = {
    ("mlp", "mnist"): "42,43",
    ("cfc", "physionet2012"): "42,100",
}  # model and data → seeds of the control
TITLE = "Does a small net of the same budget do as well?"
NOTES = [
    "The narrow net has the depth of the full one and is cut to the greatest width at which it has no more "
    "parameters than the scaffold trains; all of them are trained. Scores are means over the seeds that both "
    "arms have; interval: 95 % of the mean of the paired differences, from three seeds on."
]
HEADINGS = [
    "benchmark", "rank", "seeds", "trained: scaffold", "narrow net", "score: scaffold", "narrow net",
    "scaffold − narrow net", "95 % interval", "ahead",
]  # fmt: skip


@dataclass(frozen=True)
class Control:
    """A scaffold and the narrow net of its budget on one benchmark at one rank."""

    block: Block
    scaffold: Line
    narrow: Line
    tests: Paired

    @property
    def metric(self) -> Metric:
        return self.block.metric

    @property
    def ahead(self) -> str:
        """Which arm is ahead: by the interval from three seeds on, below that by the means, and so said."""
        found = self.tests.difference
        sign = found.mean if self.block.higher_is_better else -found.mean
        leader = "scaffold" if sign > 0 else "narrow net" if sign < 0 else "neither"
        if math.isnan(found.low):
            return f"{leader}, untested"
        return leader if found.low > 0 or found.high < 0 else "undecided"


def control_sections(shown: Shown) -> list[Section]:
    """The first section; what it says stands in the head of the page."""
    found = controls(shown.blocks)
    lines = [cells(pair, rank, found.get((pair, rank))) for pair in PAIRS for rank in RANKS]
    table = Table("", HEADINGS, 1, lines, NOTES)
    return [Section("control", TITLE, "Control", tables=[table])]


def controls(blocks: Iterable[Block]) -> dict[tuple[tuple[str, str], int], Control]:
    """The controls that were run, by model and data, and rank; of the paper's protocol and size."""
    found = {}
    for block in blocks:
        pair = (block.model, block.data)
        if pair not in PAIRS or is_shortened(block) or not block.own or not is_papers_size(block):
            continue
        for rank in RANKS:
            scaffold, narrow = (arm(block, condition, rank) for condition in ("scaffold", "small"))
            if scaffold and narrow and scaffold.by_seed.keys() & narrow.by_seed.keys():
                tests = paired(scaffold.by_seed, narrow.by_seed)
                found[pair, rank] = Control(block, scaffold, narrow, tests)
    return found


def is_papers_size(block: Block) -> bool:
    """Whether the block has the size that the paper reports the benchmark at."""
    benchmark = BENCHMARKS[block.model, block.data]
    return benchmark.variant_of(block.size) == benchmark.variant


def arm(block: Block, condition: str, rank: int) -> Line | None:
    """The recipe's own arm of a condition at a rank, options aside."""
    init = leading_init(block)
    for line in block.lines:
        plain = not line.options and not line.adapter and line.init in ("", init)
        if plain and (line.condition, line.rank) == (condition, rank):
            return line
    return None


def control_said(blocks: Iterable[Block]) -> list[str]:
    """What the controls say, a sentence for each benchmark; where one was not run, the command."""
    found = controls(blocks)
    said = []
    for pair, seeds in PAIRS.items():
        title = BENCHMARKS[pair].title
        parts = [part_said(found[pair, rank], rank) for rank in RANKS if (pair, rank) in found]
        said += [f"{title}: {'; '.join(parts)}."] if parts else []
        if missing := [str(rank) for rank in RANKS if (pair, rank) not in found]:
            said.append(
                f"{title}: not run at r = {' and '.join(missing)}. To run it: "
                f"`{command(pair, missing, seeds)}`"
            )
    return said


def command(pair: tuple[str, str], ranks: list[str], seeds: str) -> str:
    """What to type for both arms of a control."""
    model, data = pair
    typed = f"python run.py -m model={model} data={data} mode=scaffold,small"
    return f"{typed} rank={','.join(ranks)} seed={seeds}"


def part_said(control: Control, rank: int) -> str:
    """One comparison in words."""
    metric, found = control.metric, control.tests.difference
    scores = f"{means(control, 'scaffold')} against {means(control, 'narrow')}"
    unit = f" {metric.unit}" if metric.unit == "%" else ""
    verdict = {
        "scaffold": "the scaffold is ahead of the narrow net",
        "narrow net": "the narrow net is ahead of the scaffold",
        "undecided": "scaffold and narrow net are not told apart",
        "neither": "scaffold and narrow net score the same",
    }[control.ahead.removesuffix(", untested")]
    untested = ", too few for a test" if control.ahead.endswith("untested") else ""
    return f"at r = {rank} {verdict}, {scores}{unit} (n = {found.n}{untested})"


def means(control: Control, name: str) -> str:
    """The mean score of an arm over the seeds that both have."""
    mine, common = getattr(control, name).by_seed, control.scaffold.by_seed.keys() & control.narrow.by_seed
    scores = [mine[seed] for seed in common if mine[seed] is not None]
    return control.metric.text(math.fsum(scores) / len(scores)) if scores else "diverged"


def cells(pair: tuple[str, str], rank: int, control: Control | None) -> list[str]:
    """One line of the table."""
    first = [BENCHMARKS[pair].title, str(rank)]
    if control is None:
        return [*first, "0", *["–"] * (len(HEADINGS) - len(first) - 2), "not run"]
    found, metric = control.tests.difference, control.metric
    interval = [signed(end, metric) for end in (found.low, found.high)]
    return [
        *first,
        str(found.n),
        f"{control.scaffold.trainable:,}",
        f"{control.narrow.trainable:,}",
        means(control, "scaffold"),
        means(control, "narrow"),
        signed(found.mean, metric),
        "–" if math.isnan(found.low) else f"{interval[0]} … {interval[1]}",
        control.ahead,
    ]
