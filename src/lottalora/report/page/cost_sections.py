"""The section on cost: what each arm trains, and the seconds and memory that its runs happened to take."""

from lottalora.analysis.result import Table
from lottalora.analysis.statistics import interval
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import main_blocks
from lottalora.report.number_text import share
from lottalora.report.page.section import Part
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown

SAID = (
    "Seconds and memory are of these runs as they happened, on shared machines and several at a time: "
    "between two lines they are not comparable, and say nothing of which condition is faster. `make bench` "
    "times conditions against each other in one measurement; `lottalora analyse cost` has other sizes and "
    "recipes."
)
HEADINGS = [
    "condition", "rank", "trainable", "% of full", "seconds (not comparable)",
    "peak memory, MB (not comparable)", "device",
]  # fmt: skip


def cost_sections(shown: Shown) -> list[Section]:
    """Return the page's section on cost."""
    parts = [
        Part(block.title, tables=[cost_table(block)]) for block in main_blocks(shown.blocks) if block.own
    ]
    return [Section("cost", "Cost", sentences=[SAID], parts=parts)]


def cost_table(block: Block) -> Table:
    """Return the measured cost of each line of a block."""
    return Table("", HEADINGS, 1, [cost(line) for line in block.lines if line.own_rows], [])


def cost(line: Line) -> list[str]:
    """Seconds and memory of the counted runs, beside what was trained."""
    seconds = interval(run["seconds"] for run in line.runs)
    spread = "" if seconds.std != seconds.std else f" ± {seconds.std:,.0f}"
    memory = [run["peak_memory_mb"] for run in line.runs if run["peak_memory_mb"] is not None]
    return [
        line.label if line.scaffold_text == "–" else f"{line.label}, {line.scaffold_text}",
        "–" if line.rank is None else str(line.rank),
        f"{line.trainable:,}",
        share(line.percent_of_full),
        f"{seconds.mean:,.0f}{spread}",
        f"{max(memory):,.0f}" if memory else "–",
        ", ".join(sorted({run["device"] for run in line.runs})),
    ]
