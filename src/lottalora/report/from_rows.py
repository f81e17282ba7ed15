"""Rows into blocks and lines."""

import json
import math
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import replace

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.equivalence import Equivalence
from lottalora.analysis.equivalence import published_equivalence
from lottalora.analysis.metrics import METRICS
from lottalora.analysis.metrics import Metric
from lottalora.analysis.metrics import metric_of
from lottalora.analysis.paper import PaperNumber
from lottalora.analysis.paper import paper_number
from lottalora.analysis.recovery import recovery
from lottalora.analysis.recovery import share_above_chance
from lottalora.analysis.statistics import Interval
from lottalora.analysis.statistics import interval
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.blocks import score_of_each_seed
from lottalora.report.grouping import adapter_of
from lottalora.report.grouping import block_key
from lottalora.report.grouping import changed_of_training
from lottalora.report.grouping import find_baseline
from lottalora.report.grouping import grouped
from lottalora.report.grouping import held_out
from lottalora.report.grouping import line_key
from lottalora.report.grouping import newest
from lottalora.report.grouping import options_of
from lottalora.report.grouping import place_of
from lottalora.report.grouping import recipe_of_all
from lottalora.report.grouping import settings_of
from lottalora.report.grouping import stand_in
from lottalora.report.protocol import keeps_protocol
from lottalora.results.rows import Row
from lottalora.results.rows import precision_of

# mode → condition as in paper.csv, where the two differ. no_scaffold is a test-time arm of scaffold.
CONDITIONS = {
    "baseline": "full",
    "zero": "zero_scaffold",
    "resample_batch": "resample_batch_k2",
    "resample_microbatch": "resample_microbatch_k4",
}
ORDER = (
    "full", "scaffold", "no_scaffold", "resample_epoch", "resample_batch_k2", "resample_microbatch_k4",
    "zero_scaffold", "head", "small", "thawed", "full_from_scaffold", "lora", "probe",
)  # fmt: skip


def blocks_of(rows: Iterable[Row], *, lost: Collection[str] = ()) -> list[Block]:
    """All rows, each in the one block it belongs to; a benchmark's paper recipe stands first.

    A further score of a known metric has blocks of its own, behind those of what the rows are scored by.

    Args:
        rows: in any order.
        lost: commits that are in no history here (`results.ancestry`); lines with such rows are marked.
    """
    rows = list(rows)
    measured = {True: rows, False: [each for row in rows for each in further(row)]}
    blocks = [
        block_of(members, own=own, lost=lost)
        for own in measured
        for _, members in sorted(grouped(measured[own], block_key).items())
    ]
    return with_titles_apart(sorted(blocks, key=block_order))


def block_order(block: Block) -> tuple:
    """Return the sort key of a block: the paper's recipe first, further scores last."""
    rest = block.size, block.metric.name, block.fingerprint, block.recipe, json.dumps(block.changed)
    return block.model, block.data, distance_from_paper(block), not block.own, *rest


def with_titles_apart(blocks: list[Block]) -> list[Block]:
    """Name in the titles of blocks what they differ in, where these were one: a recipe that was edited."""
    of_title: dict[str, list[dict]] = {}
    for block in blocks:
        of_title.setdefault(block.title, []).append(block.settings)
    return [
        replace(block, apart=differing(block.settings, of_title[block.title]))
        if len(of_title[block.title]) > 1
        else block
        for block in blocks
    ]


def differing(settings: dict, others: list[dict]) -> dict:
    """The settings that one of the others has otherwise."""
    return {key: value for key, value in settings.items() if any(other.get(key) != value for other in others)}


def distance_from_paper(block: Block) -> int:
    """0 for the paper's recipe, 1 for that in another precision, 2 for any other."""
    return len(block.changed) if block.recipe == "paper" else 2


def further(row: Row) -> list[Row]:
    """The same run as if it had been scored by each of its further metrics that are known.

    A run that diverged has no scores and counts as diverged by the metric that the paper's table has.
    """
    scores = {name: score for name, score in row["further"].items() if name in METRICS}
    if row["diverged"]:
        benchmark = BENCHMARKS.get((row["model"], row["data"]))
        asked = {
            name for name, metric in METRICS.items() if benchmark and metric.paper_name == benchmark.metric
        }
        scores = dict.fromkeys(asked - {row["metric"]})
    return [row | scored_by(name, METRICS[name], score) for name, score in scores.items()]


def scored_by(name: str, metric: Metric, score: float | None) -> dict:
    """What differs in a row that is read as scored by a further metric."""
    direction = {"higher_is_better": metric.higher_is_better, "chance": metric.chance}
    return direction | {"metric": name, "score": score, "arms": {}, "further": {}}


def block_of(rows: list[Row], *, own: bool, lost: Collection[str] = ()) -> Block:
    """Make a block of rows that may be compared."""
    first = rows[0]
    cells = grouped(rows, line_key)
    lines = [line for cell in cells.values() for line in lines_of(cell, cells, own=own)]
    lines = [replace(line, lost=sum(row["commit"] in lost for row in line.runs)) for line in lines]
    return Block(
        model=first["model"],
        size=first["size"],
        data=first["data"],
        stand_in=stand_in(first),
        held_out=held_out(first),
        recipe=recipe_of_all(rows),
        changed=changed_of_training(first),
        precision=precision_of(first),
        settings=settings_of(first),
        metric=metric_of(first["metric"]),
        higher_is_better=first["higher_is_better"],
        chance=first["chance"],
        full=first["counts"]["full"],
        fingerprint=first["data_fingerprint"],
        lines=sorted(lines, key=line_order),
        own=own,
    )


def lines_of(cell: list[Row], cells: dict[str, list[Row]], *, own: bool) -> list[Line]:
    """A line for the mode itself, and one for the test-time arm without the scaffold where rows have it."""
    mode = cell[0]["mode"]
    baseline = interval(row["score"] for row in newest(find_baseline(cells, cell[0])))
    options = options_of(cell[0], cells)
    lines = [line_of(cell, CONDITIONS.get(mode, mode), baseline, options, own_rows=own)]
    if any("scaffold_removed" in row["arms"] for row in newest(cell)):
        lines.append(line_of(cell, "no_scaffold", baseline, options, own_rows=False))
    return lines


def line_of(cell: list[Row], condition: str, baseline: Interval, options: str, *, own_rows: bool) -> Line:
    """Make the line of one condition of a cell."""
    row, runs = cell[0], newest(cell)
    scores = list(score_of_each_seed(condition, runs).values())
    ours = interval(scores)
    counted = {run["digest"] for run in runs}
    paper = paper_of(row, condition) if not options else None
    beside_paper = equivalence_of(scores, paper, row)
    return Line(
        condition=condition,
        adapter=adapter_of(row),
        init=row["init"],
        rank=row["rank"],
        alpha=row["alpha"],
        options=options,
        scores=ours,
        recovery=recovery(ours.mean, baseline.mean, row["higher_is_better"]),
        share_above_chance=share_above_chance(
            ours.mean, baseline.mean, row["chance"], row["higher_is_better"]
        ),
        trainable=row["counts"]["trainable"],
        full=row["counts"]["full"],
        full_plus_adapters=row["counts"]["full_plus_adapters"],
        paper=paper,
        beside_paper=beside_paper,
        verdict=beside_paper.verdict if beside_paper else "",
        runs=runs,
        older=[row for row in cell if row["digest"] not in counted],
        lost=0,
        own_rows=own_rows,
    )


def equivalence_of(scores: list, paper: PaperNumber | None, row: Row) -> Equivalence | None:
    """The test of our scores against the paper's number for this size, by the margin `Metric.agrees`."""
    margin = metric_of(row["metric"]).margin
    if paper is None or paper.all_sizes or math.isnan(margin):
        return None
    return published_equivalence(scores, paper.mean, margin, paper.std, paper.n)


def paper_of(row: Row, condition: str) -> PaperNumber | None:
    """The paper's number for what this row measured; None where its protocol is not the paper's."""
    if place_of(row) or not keeps_protocol(row, condition):
        return None
    benchmark = BENCHMARKS[row["model"], row["data"]]
    rank = None if condition == "full" else row["rank"]
    size, options = row["size"], adapter_of(row)
    if size + options in benchmark.variants:  # the paper calls these options a variant, not a condition
        size, options = size + options, ""
    return paper_number(benchmark, size, condition + options, rank, metric_of(row["metric"]))


def line_order(line: Line) -> tuple:
    """Return the sort key of a line."""
    place = ORDER.index(line.condition) if line.condition in ORDER else len(ORDER)
    return place, line.condition, line.adapter, line.init, line.rank or 0, line.alpha or 0, line.options
