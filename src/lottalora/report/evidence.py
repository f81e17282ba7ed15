"""What our rows say of each number of the paper: ours beside it, and the verdict."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from statistics import fmean

from lottalora.analysis.cost import shipped_mib
from lottalora.analysis.equivalence import Equivalence
from lottalora.analysis.equivalence import published_equivalence
from lottalora.analysis.metrics import Metric
from lottalora.analysis.speed import table_9
from lottalora.analysis.statistics import FEWEST
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.grouping import place_of
from lottalora.report.over_families import FAMILIES
from lottalora.report.over_families import SPREAD
from lottalora.report.over_families import SWEEPS
from lottalora.report.over_families import Families
from lottalora.report.over_families import families_of
from lottalora.report.over_families import family_means
from lottalora.report.over_families import spread_of
from lottalora.report.paper_cells import OF_PLACE
from lottalora.report.paper_cells import Cell
from lottalora.report.protocol import keeps_protocol
from lottalora.report.score_text import line_text
from lottalora.report.score_text import lost_text
from lottalora.report.score_text import named_text
from lottalora.report.score_text import precision_text
from lottalora.report.scores import scores_by_seed
from lottalora.report.scores import scores_of

MIB = 1.0  # the margin of shipped sizes
COSTS = ("peak_gpu_gb", "throughput_ratio_to_full")  # Table 9's metrics
SHARE = 0.1  # of the paper's number: their margin
SHARE_OF_SPREAD = 0.5  # likewise for a spread over families


@dataclass(frozen=True)
class Finding:
    """What we have for a cell: our number as text, and what it says about the paper's."""

    ours: str
    verdict: str
    kind: str  # one of KINDS
    as_runs: str = ""  # the same if the paper's runs are taken to spread as ours; "" where nothing is tested
    p: float = math.nan  # that there is no difference, two-sided; NaN where nothing is tested
    sample: tuple[float, ...] = ()  # what the test compares with the paper's number


KINDS = {
    "agrees": "agrees: a difference as large as the margin is ruled out at 5 %",
    "differs": "differs at 5 %, and is not shown to agree",
    "undecided": "undecided: neither was shown",
    "untested_within": "too few runs for a test (n < 3), within the margin",
    "untested_outside": "too few runs for a test (n < 3), outside the margin",
    "within": "within the margin, one number without a test",
    "outside": "outside the margin, one number without a test",
    "part": "an average of which a part is missing",
    "other": "another data set or a shortened recipe",
    "open": "not run",
}
ASK_WHY = ("differs", "untested_outside", "outside")  # kinds of which a reader asks what explains them


@dataclass(frozen=True)
class Evidence:
    """Our lines, to be found by what a cell of the paper asks."""

    by_protocol: Mapping[tuple, Line]
    otherwise: Mapping[tuple, tuple[Block, Line]]  # another data set or recipe: no number to compare
    families: Families  # all 22 of Table 3

    def find(self, cell: Cell) -> Finding:
        if cell.line["metric"].startswith("shipped_"):
            return counted(cell)
        if cell.line["metric"] in COSTS:
            return measured(cell)
        if cell.metric is None:
            return Finding("–", missing_text(cell), "open")
        if cell.line["variant"] == "families":
            return compared_over_families(cell, self.families)
        keys = [(cell.model, size, cell.condition, cell.rank, cell.metric.paper_name) for size in cell.sizes]
        found = [self.by_protocol[key] for key in keys if key in self.by_protocol]
        if len(found) == len(keys):
            return compared(cell, found)
        if found:
            sizes = ", ".join(key[1] for key in keys if key in self.by_protocol)
            return Finding("–", f"in part: {sizes}; the rest by `{cell.typed}`", "part")
        if keys[0] in self.otherwise:
            block, line = self.otherwise[keys[0]]
            return Finding(line_text(line, block.metric), why_not(cell, block), "other")
        return Finding("–", missing_text(cell), "open")


def evidence_of(blocks: list[Block]) -> Evidence:
    """Sort lines into runs by the paper's protocol and others."""
    by_protocol, otherwise = {}, {}
    for block in blocks:
        for line in block.lines:
            condition, options = line.condition, line.options
            place = place_of(line.runs[0])
            if condition == "scaffold" and options == f"place={place}" and place in OF_PLACE:
                condition, options = OF_PLACE[place], ""
            key = (block.model, block.size, condition + line.adapter, line.rank, block.metric.paper_name)
            if keeps_protocol(line.runs[0], line.condition) and not options:
                by_protocol.setdefault(key, line)  # blocks of an unchanged recipe come first
            elif block.recipe != "paper" and not line.options:
                known = otherwise.get(key)
                if known is None or line.runs[0]["epochs"] > known[1].runs[0]["epochs"]:
                    otherwise[key] = (block, line)
    return Evidence(by_protocol, otherwise, families_of(blocks))


def counted(cell: Cell) -> Finding:
    """A size of Table 10, which follows from counts alone, so without a run."""
    return beside(cell, shipped_mib(cell.line["metric"], cell.sizes[0]), margin=MIB, digits=1, how="by count")


def measured(cell: Cell) -> Finding:
    """A cost of Table 9, which a benchmark measures."""
    metric = cell.line["metric"]
    ours = table_9(metric, cell.sizes[0], scaffold=cell.rank is not None)
    return beside(cell, ours, margin=SHARE * cell.paper, digits=2, how="measured once, on an H200")


def beside(cell: Cell, ours: float, *, margin: float, digits: int, how: str) -> Finding:
    """One number of ours that is no run's score beside the paper's."""
    apart, side = abs(ours - cell.paper), "above" if ours > cell.paper else "below"
    if apart <= margin:
        return Finding(f"{ours:.{digits}f}", f"within the margin, {how}", "within")
    return Finding(f"{ours:.{digits}f}", f"outside the margin, {apart:.{digits}f} {side}, {how}", "outside")


def compared(cell: Cell, found: list[Line]) -> Finding:
    """Our runs beside the paper's number: of one size, or averaged over sizes as the paper does."""
    metric = cell.metric
    if not all(scores_of(line) for line in found):
        return Finding("diverged", "no run has a finite score", "differs")
    if len(found) == 1:
        sample = [score * metric.scale for score in scores_of(found[0])]
        return judged(named_text(found[0], metric), sample, cell, metric)
    sample = [score * metric.scale for score in over_sizes(found, cell.line["condition"])]
    if not sample:
        return Finding("–", f"no seed is common to all sizes; more by `{cell.typed}`", "part")
    lost = lost_text(sum(line.scores.diverged for line in found))
    precisions = "".join(dict.fromkeys(map(precision_text, found)))
    text = f"{fmean(sample):.{metric.decimals}f} (over sizes, n = {len(sample)} each{lost}){precisions}"
    return judged(text, sample, cell, metric)


def compared_over_families(cell: Cell, families: Families) -> Finding:
    """Our runs of all families and sizes beside the mean or the spread that Table 3 states."""
    metric, sweep = cell.metric, f"`python run.py -m sweeps={SWEEPS[cell.condition]}`"
    runs = families.runs_of(cell.model, cell.sizes, cell.condition, cell.rank)
    asked = len(FAMILIES) * len(cell.sizes)
    if not runs:
        return Finding("–", f"not run: {sweep}", "open")
    if len(runs) < asked:
        return Finding("–", f"in part: {len(runs)} of {asked}; the rest by {sweep}", "part")
    means = family_means(runs, cell.sizes)
    if not means:
        return Finding("–", f"no seed is common to all families; more by {sweep}", "part")
    of_what = f"({len(FAMILIES)} families, over sizes, n = {len(means)} each)"
    if cell.line["metric"].endswith(SPREAD):
        margin = SHARE_OF_SPREAD * cell.paper
        found = beside(
            cell, metric.scale * spread_of(means), margin=margin, digits=2, how="one number, untested"
        )
        return replace(found, ours=f"{found.ours} {of_what}")
    sample = [metric.scale * fmean(each) for each in means]
    text = f"{fmean(sample):.{metric.decimals}f} {of_what}"
    return judged(text, sample, cell, metric)


def over_sizes(lines: Sequence[Line], condition: str) -> list[float]:
    """Scores of the size with the least or greatest mean; else the mean over sizes for each common seed."""
    if condition in EXTREMES:
        return EXTREMES[condition]((scores_of(line) for line in lines), key=fmean)
    sizes = [scores_by_seed(line) for line in lines]
    common = sorted(set.intersection(*(set(size) for size in sizes)))
    return [fmean(size[seed] for size in sizes) for seed in common]


EXTREMES = {"scaffold_min": min, "scaffold_max": max}


def judged(ours: str, sample: Sequence[float], cell: Cell, metric: Metric) -> Finding:
    """What our scores, `ours` as text, say of the paper's number by the margin `metric.agrees`.

    From three runs on an equivalence test (TOST) against the paper's mean, with its deviation if it has one.
    """
    test, as_runs = (tested(sample, cell, metric, exact=exact) for exact in (True, False))
    apart, side = abs(test.difference), "above" if test.difference > 0 else "below"
    within = apart <= metric.agrees
    said = f"{apart:.{metric.decimals}f} {side}"
    if len(sample) < FEWEST:
        held = "within the margin" if within else f"outside the margin, {said}"
        kind = "untested_within" if within else "untested_outside"
        return Finding(ours, f"{held}, n = {len(sample)}, untested", kind)
    kind = TESTED.get(test.verdict, "undecided")
    words = f"{kind}, {said}" + (", within the margin" if kind == "differs" and within else "")
    as_runs_kind = TESTED.get(as_runs.verdict, "undecided")
    return Finding(ours, words, kind, as_runs_kind, test.difference_p, tuple(sample))


TESTED = {"agrees": "agrees", "above": "differs", "below": "differs"}  # verdict of the test → kind


def tested(sample: Sequence[float], cell: Cell, metric: Metric, *, exact: bool) -> Equivalence:
    """The test of a sample against the paper's number; `exact` as of `published_equivalence`."""
    std, seeds = cell.line["std"], cell.line["seeds"]
    published = {"std": float(std or "nan"), "n": int(seeds) if seeds else None}
    return published_equivalence(sample, cell.paper, metric.agrees, **published, exact=exact)


def why_not(cell: Cell, block: Block) -> str:
    """Say why the block's number is not compared with the paper's."""
    if block.data != cell.data:
        return f"another data set: {block.data}, recipe `{block.recipe}`"
    if block.stand_in:
        return f"another data set: {block.stand_in}, recipe `{block.recipe}`"
    if "data.id" in block.changed:
        return f"another data set: `{block.changed['data.id']}`, recipe `{block.recipe}`"
    return f"a shortened recipe, `{block.recipe}`"


def missing_text(cell: Cell) -> str:
    """Say which command would fill the cell."""
    if cell.metric is None:
        return "not measured yet"
    return f"not run: `{cell.typed}`" if cell.typed else "not in the suite yet"
