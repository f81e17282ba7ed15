"""Blocks as text: the same cells serve terminal, Markdown, LaTeX and page; CSV keeps the raw numbers."""

from collections.abc import Iterable

from lottalora.analysis.metrics import Metric
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.csv_text import is_nan
from lottalora.report.number_text import margin_text
from lottalora.report.number_text import percent
from lottalora.report.number_text import share
from lottalora.report.number_text import signed
from lottalora.report.number_text import with_interval

LOST = "†"
LEFT = 2  # the first columns are words, the others numbers
COLUMNS = (
    "condition", "init", "rank", "n", "score", "recovery", "above_chance", "trainable", "share",
    "share_with_adapters", "paper", "difference", "verdict",
)  # fmt: skip
CAPTION = "mean ± sample standard deviation over n runs that differ in their seeds alone"
INTERVAL = "[low, high]: 95 % interval of the mean, by {}; none below n = 3."


def headings(metric: Metric) -> list[str]:
    """Return the headings of the recovery table."""
    score = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
    return [
        "condition",
        "W_seed, options",
        "rank",
        "n",
        score,
        "recovery, %",
        "above chance, %",
        "trainable",
        "% of full",
        "% of full + adapters",
        "paper",
        difference_heading(metric),
        "verdict",
    ]


def part_and_label(metric: Metric) -> str:
    """Name a score by the part of the data that it is of, such as `test accuracy`."""
    return f"{metric.part} {metric.label}".strip()


def difference_heading(metric: Metric) -> str:
    """Percentages differ by points, not by percent."""
    return "ours − paper, points" if metric.unit == "%" else "ours − paper"


def cells(line: Line, metric: Metric) -> list[str]:
    """One line as people read it; – where a number does not exist."""
    return [
        line.label,
        line.scaffold_text,
        "–" if line.rank is None else str(line.rank),
        f"{line.scores.n}{LOST if line.lost else ''}",
        with_interval(line.scores, metric),
        percent(100 * line.recovery),
        percent(100 * line.share_above_chance),
        f"{line.trainable:,}",
        share(line.percent_of_full),
        share(line.percent_of_full_plus_adapters),
        paper_cell(line, metric),
        signed(line.difference, metric),
        line.verdict or "–",
    ]


def notes(block: Block) -> list[str]:
    """What a reader must know besides the numbers."""
    direction = "higher" if block.higher_is_better else "lower"
    chance = block.metric.text(block.chance)
    what = block.metric.of_part
    said = [f"{what[0].upper()}{what[1:]}, {direction} is better, chance {chance}; {CAPTION}."]
    if methods := sorted({line.scores.method for line in block.lines if not is_nan(line.scores.low)}):
        said.append(INTERVAL.format(" or ".join(methods)))
    if block.stand_in:
        said.append(
            f"{block.stand_in[0].upper()}{block.stand_in[1:]} in place of the official data: these scores "
            "are not tested against the paper's."
        )
    if block.held_out:
        said.append(block.held_out)
    if all(line.condition == "gated" for line in block.lines):
        said.append("Which digits each scaffold names is said by the analysis of seed gating.")
    elif block.baseline is None:
        said.append("No full training under this recipe yet, so no recovery: run it with mode=baseline.")
    elif not block.baseline.scores.n:
        said.append("Every run of full training diverged, so no recovery.")
    if any(line.paper and line.paper.all_sizes for line in block.lines):
        said.append("* the paper averages this over model sizes, so there is no difference to state.")
    if any(line.verdict for line in block.lines):
        said.append(
            f"Verdicts, each by itself at 5 %: agrees, a difference of {margin_text(block.metric)} or more "
            "from the paper's mean is ruled out (TOST); above or below the paper, it is not, and the t-test "
            "finds a difference; undecided, neither; untested, fewer than three runs or no spread."
        )
        if wide := wide_margin(block):
            said.append(wide)
    diverged = sum(line.scores.diverged for line in block.lines if line.condition != "no_scaffold")
    if diverged:
        said.append(f"Runs without a finite score (diverged): {diverged}; in neither n nor the mean.")
    superseded = sum(line.superseded for line in block.lines if line.condition != "no_scaffold")
    if lost := sum(line.lost for line in block.lines if line.condition != "no_scaffold"):
        said.append(f"{LOST} made by code that is in no history here: {lost} of the runs. Run them again.")
    if superseded:
        said.append(f"Older rows of a seed that was run again: {superseded}; the newest counts.")
    return said


def wide_margin(block: Block) -> str:
    """A sentence where the margin spans more than lies between the arms, so that all of them agree; or ""."""
    arms = [line for line in block.lines if line.condition in ("full", "scaffold") and line.paper]
    means = [line.scores.mean for line in arms if not is_nan(line.scores.mean)]
    if len(means) < 2 or max(means) - min(means) >= 2 * block.metric.margin:
        return ""
    spread = block.metric.text(max(means) - min(means))
    return (
        f"The margin of ± {margin_text(block.metric)} is wider than the spread of all arms here, which lie "
        f"within {spread} of each other: agreement says little."
    )


def markdown(blocks: Iterable[Block], summary: str) -> str:
    """Write all tables as Markdown."""
    parts = ["# Recovery", summary]
    for block in blocks:
        head = headings(block.metric)
        rule = [":--" if column < LEFT else "--:" for column in range(len(head))]
        lines = [head, rule, *(cells(line, block.metric) for line in block.lines)]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)
        parts += [f"## {block.title}", table, "  \n".join(markdown_text(note) for note in notes(block))]
    return "\n\n".join(parts) + "\n"


def recovery_csv(blocks: Iterable[Block]) -> str:
    """Every line with its numbers unrounded, scores in the unit of the rows (an accuracy is a fraction)."""
    return csv_text([csv_line(block, line) for block in blocks for line in block.lines])


def csv_line(block: Block, line: Line) -> dict:
    """Return a line's numbers for CSV."""
    changed = "; ".join(f"{key}={value}" for key, value in block.changed.items())
    of_block = {key: getattr(block, key) for key in ("model", "size", "data", "stand_in", "recipe")}
    of_line = {
        key: getattr(line, key) for key in ("condition", "adapter", "init", "options", "rank", "alpha")
    }
    scores = line.scores
    ours = {"metric": block.metric.name, "n": scores.n, "diverged": scores.diverged, "lost": line.lost}
    ours |= {"mean": scores.mean, "std": scores.std, "low": scores.low, "high": scores.high}
    derived = ("recovery", "share_above_chance", "trainable", "full", "full_plus_adapters")
    shares = ("percent_of_full", "percent_of_full_plus_adapters")
    paper = line.paper
    theirs = {
        "paper": paper.mean if paper else None,
        "paper_std": paper.std if paper else None,
        "paper_n": paper.n if paper else None,
        "paper_table": paper.table if paper else None,
        "difference": line.difference,
        "verdict": line.verdict,
    }
    return (
        of_block
        | {"changed": changed}
        | of_line
        | ours
        | {k: getattr(line, k) for k in derived + shares}
        | theirs
    )


def paper_cell(line: Line, metric: Metric) -> str:
    """Format the paper's number; * marks an average over sizes."""
    if line.paper is None:
        return "–"
    return metric.text(line.paper.mean) + ("*" if line.paper.all_sizes else "")


def markdown_text(text: str) -> str:
    """Escape Markdown's asterisks."""
    return text.replace("*", r"\*")
