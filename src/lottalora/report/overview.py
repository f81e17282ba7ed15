"""The nine benchmarks of the paper: how far each has come, and the paper's own number beside it."""

import math
from dataclasses import dataclass

from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import Benchmark
from lottalora.analysis.metrics import Metric
from lottalora.analysis.paper import numbers
from lottalora.analysis.recovery import recovery
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.recovery_bars import bars_of
from lottalora.report.tables import limits


@dataclass(frozen=True)
class Card:
    """One benchmark on the page; recoveries in percent, NaN where they do not exist."""

    benchmark: Benchmark
    blocks: list[Block]
    block: Block | None  # of the best line
    line: Line | None
    ours: float
    paper: float
    paper_said: str
    stand_in: str  # for which data there are rows that count nothing here; mostly ""

    @property
    def state(self) -> str:
        if not self.blocks:
            return "stand-in data only" if self.stand_in else "not run yet"
        if self.line is None:
            return "no recovery yet"
        return "paper's protocol" if self.block.recipe == "paper" else "another recipe"

    @property
    def said(self) -> str:
        if not self.blocks and self.stand_in:
            return f"Run with {self.stand_in} only: nothing to set beside the paper; see the tables."
        if not self.blocks:
            model, data = self.benchmark.model, self.benchmark.data
            return f"python run.py -m model={model} data={data} mode=baseline,scaffold"
        if self.line is None:
            runs = runs_of(self.blocks)
            return f"{runs} run{'s'[: runs > 1]}, but no pair of scaffold and full training under one recipe."
        line, metric, full = self.line, self.block.metric, self.block.baseline
        unit = f" {metric.unit}" if metric.unit else ""
        return (
            f"{self.block.size}, r = {line.rank}: {metric.name} "
            f"{metric.text(line.scores.mean)}{unit} (n = {line.scores.n}{within(line, metric)}) "
            f"against {metric.text(full.scores.mean)}{unit} (n = {full.scores.n}{within(full, metric)}), "
            f"training {line.percent_of_full:#.3g} % of the parameters"
        )


def within(line: Line, metric: Metric) -> str:
    """The 95 % interval of a mean, where there is one."""
    found = limits(line.scores, metric)
    return f",{found}" if found else ""


def cards_of(blocks: list[Block]) -> list[Card]:
    return [card_of(benchmark, blocks) for benchmark in NINE]


def card_of(benchmark: Benchmark, blocks: list[Block]) -> Card:
    """The best line of the paper's protocol or else of another recipe; stand-ins for the data never count."""
    pair = (benchmark.model, benchmark.data)
    mine = [b for b in blocks if (b.model, b.data) == pair and b.metric.paper_name == benchmark.metric]
    stand_ins = {b.stand_in: None for b in mine if b.stand_in not in ("", "built-in sample")}
    mine = [b for b in mine if not b.stand_in]
    bars = bars_of([block for block in mine if block.recipe == "paper"]) or bars_of(mine)
    best = max(bars, key=lambda bar: bar.recovery, default=None)
    variant = benchmark.variant
    if best and best.block.baseline.paper and not best.block.baseline.paper.all_sizes:
        variant = benchmark.variant_of(best.block.size)
    theirs, rank = paper_best(benchmark, variant)
    full = numbers()[benchmark.name, variant, "full", "", benchmark.metric]
    said = f"{theirs:.1f} % at r = {rank}, {variant}, best of its ranks (Table {full['table']})"
    ours = best.recovery if best else math.nan
    stand_in = " and ".join(stand_ins)
    return Card(benchmark, mine, best and best.block, best and best.line, ours, theirs, said, stand_in)


def paper_best(benchmark: Benchmark, variant: str) -> tuple[float, int]:
    """The paper's highest recovery of this size, in percent, and its rank."""
    full = float(numbers()[benchmark.name, variant, "full", "", benchmark.metric]["mean"])
    found = []
    for (name, size, condition, rank, metric), line in numbers().items():
        if (name, size, condition, metric) == (benchmark.name, variant, "scaffold", benchmark.metric):
            share = recovery(float(line["mean"]), full, benchmark.higher_is_better)
            found.append((100 * share, int(rank)))
    return max(found)


def verdict_of(cards: list[Card]) -> str:
    """The one sentence at the head of the page, made from what was run under the paper's protocol."""
    done = [card for card in cards if card.line is not None and card.block.recipe == "paper"]
    if not done:
        ran = sum(bool(card.blocks) for card in cards)
        started = f"; {ran} of nine benchmarks {'has' if ran == 1 else 'have'} rows" if ran else ""
        return f"No benchmark has both a scaffold and full training under the paper's protocol yet{started}."
    said = "; ".join(
        f"{card.ours:.1f} % on {card.benchmark.title} (paper {card.paper:.1f} %)" for card in done
    )
    return (
        f"Low-rank adapters on a frozen random network recover, at the best rank run so far, {said} of full "
        f"training's test score; {len(done)} of the paper's nine benchmarks so far."
    )


def runs_of(blocks: list[Block]) -> int:
    """Rows, each once: the test-time arm without the scaffold has those of its scaffold."""
    return sum(len(line.runs) + len(line.older) for block in blocks for line in block.lines if line.own_rows)
