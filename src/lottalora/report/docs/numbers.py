"""Numbers within a sentence: one function each, from rows to text."""

from collections.abc import Iterable
from statistics import fmean
from statistics import median

from lottalora.analysis.paper import ALL_SIZES
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.docs.find import find
from lottalora.report.docs.find import find_block
from lottalora.report.docs.markers import fills
from lottalora.report.evidence import evidence_of
from lottalora.report.number_text import percent
from lottalora.report.number_text import share
from lottalora.report.number_text import signed
from lottalora.report.paper_cells import cells
from lottalora.report.paper_lines import protocol_lines
from lottalora.report.score_text import line_text
from lottalora.report.score_text import runs_text
from lottalora.report.scores import scores_by_seed


@fills
def score(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str = "-", *rest: str
) -> str:
    """One score in a sentence: `score mlp mnist medium scaffold 8`, then init=, adapter=, recipe= …"""
    block, line = find(blocks, model, data, size, condition, rank, *rest)
    unit = f" {block.metric.unit}" if block.metric.unit == "%" else ""
    values = line_text(line, block.metric)
    return values.replace(" (n", f"{unit} (n")


@fills
def over_sizes(blocks: list[Block], model: str, data: str, condition: str, rank: str) -> str:
    """Our number beside one that the paper averages over sizes: `over_sizes mlp mnist no_scaffold 8`."""
    asked = (model, data, ALL_SIZES, condition, int(rank))
    for cell in cells():
        if (cell.model, cell.data, cell.line["variant"], cell.condition, cell.rank) == asked:
            ours = evidence_of(blocks).find(cell).ours
            return ours.replace(" (over sizes, ", " % (" if cell.metric and cell.metric.unit == "%" else " (")
    raise ValueError(f"the paper has no number of {model} on {data} over sizes for {condition}, rank {rank}.")


@fills
def last_validation(blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str) -> str:
    """The validation score after the last epoch, from the rows' history."""
    block, line = find(blocks, model, data, size, condition, rank)
    unit = f" {block.metric.unit}" if block.metric.unit == "%" else ""
    last = [run["history"]["validation_score"][-1] for run in line.runs if run["history"]]
    return runs_text(last, block.metric).replace(" (n", f"{unit} (n")


@fills
def difference(blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str = "-") -> str:
    """Our mean minus the paper's number."""
    block, line = find(blocks, model, data, size, condition, rank)
    return signed(line.difference, block.metric)


@fills
def beside_full(blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str) -> str:
    """Our mean minus full training's, over their common seeds."""
    block, line = find(blocks, model, data, size, condition, rank)
    ours, full = scores_by_seed(line), scores_by_seed(find(blocks, model, data, size, "full", "-")[1])
    return signed(fmean(ours[seed] - full[seed] for seed in ours.keys() & full.keys()), block.metric)


@fills
def recovery(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """Recovery in percent."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{percent(100 * line.recovery)} %"


@fills
def trainable(blocks: list[Block], model: str, data: str, size: str, rank: str) -> str:
    """The share of the full model's parameters that a scaffold trains."""
    _, line = find(blocks, model, data, size, "scaffold", rank)
    return f"{share(line.percent_of_full)} %"


@fills
def beta(blocks: list[Block], model: str, data: str, size: str) -> str:
    """The least and the greatest β of the paper's scaffold, over ranks, seeds and layers."""
    lines = protocol_lines(find_block(blocks, model, data, size))
    values = betas(lines)
    return f"{min(values):.2f} and {max(values):.2f}"


@fills
def median_beta(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """The median of a line's β, over its layers and runs."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{median(betas([line])):.3f}"


@fills
def decay_alone(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """What weight decay alone makes of a β of 1 in a line's runs."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{fmean(run['beta_decay'] for run in line.runs):.3f}"


@fills
def figure_runs(blocks: list[Block]) -> str:
    """How many runs stand behind a point of the README's figure."""
    from lottalora.report.docs.figure import panels

    counts = [point.line.scores.n for panel in panels(blocks) for point in panel.points]
    return f"n = {min(counts)} to {max(counts)} seeds"


def betas(lines: Iterable[Line]) -> list[float]:
    """Every finite β of the lines, over their runs and layers."""
    found = (value for line in lines for run in line.runs for value in run["beta"].values())
    return [value for value in found if value is not None]
