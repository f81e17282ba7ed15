"""The section of analyses: those of rows made anew, those of kept weights as they were written."""

from contextlib import suppress
from dataclasses import replace
from importlib import import_module

from lottalora.analysis.result import Analysis
from lottalora.report.analyses.kept_runs import COMMAND
from lottalora.report.analyses.output import read
from lottalora.report.blocks import Block
from lottalora.report.main_blocks import is_shortened
from lottalora.report.page.section import Part
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown
from lottalora.report.pictures.palette import COLOURS

# name → its heading; those of OF_WEIGHTS need trained weights beside the rows
OF_ROWS = {
    "rank": "The least rank that suffices",
    "budget": "Score against all trained parameters",
    "effects": "What one option changes",
    "curves": "Learning curves",
    "seeds": "Scaffold seed against training seed",
    "gating": "Seed gating",
}
OF_WEIGHTS = {
    "paths": "Frozen path against adapter path",
    "spectra": "Singular values of scaffolds and updates",
    "similarity": "Similarity to full training, layer by layer",
    "bytes": "Score against shipped bytes",
}
OVER_ALL = ("rank", "gating")  # these have one table over all blocks, or few runs
LONGEST = 40  # lines of a table on the page; the analysis' own files hold all
DRAWN = {"curves": len(COLOURS), "effects": LONGEST}  # analysis → arms of a block at most; others have all
SAID = (
    "One figure and one table of each analysis, of the benchmark with the most runs; `python -m lottalora "
    "analyse NAME` writes all of its tables and figures, and its numbers as CSV."
)


def analysis_sections(shown: Shown) -> list[Section]:
    """One section, a folded part for each analysis; of those that were not made, the command."""
    parts, missing = [], []
    for name, heading in (OF_ROWS | OF_WEIGHTS).items():
        found = stored(name, shown) if name in OF_WEIGHTS else made(name, shown.blocks)
        if found is None:
            missing.append(name)
        else:
            parts.append(part_of(name, heading, *found))
    return [Section("analyses", "Analyses", sentences=[SAID, *missing_said(missing)], parts=parts)]


def module_of(name: str):  # noqa: ANN201  a module of this package
    """The module of an analysis."""
    return import_module(f"lottalora.report.analyses.{'least_rank' if name == 'rank' else name}")


def made(name: str, blocks: list[Block]) -> tuple[Analysis, list[Block]] | None:
    """An analysis of rows and its blocks: all, or the one with the most runs; None where no row serves."""
    single = [[shortened(block, name)] for block in most_runs_first(blocks)]
    for choice in [blocks] if name in OVER_ALL else single:
        with suppress(ValueError):  # no rows for it
            return module_of(name).analyse(choice), choice
    return None


def most_runs_first(blocks: list[Block]) -> list[Block]:
    """The paper's protocol before others, then by the number of runs."""
    return sorted(
        blocks, key=lambda block: (is_shortened(block), -sum(len(line.runs) for line in block.lines))
    )


def shortened(block: Block, name: str) -> Block:
    """The block with as many lines as the page draws of an analysis; an interval a point takes its time."""
    return replace(block, lines=block.lines[: DRAWN.get(name)])


def stored(name: str, shown: Shown) -> tuple[Analysis, list[Block]] | None:
    """An analysis of kept weights as it was written below the results; None if it was not."""
    folder = shown.results and shown.results / "analyses" / name
    found = read(folder / f"{name}.json") if folder else None
    return found and (found, shown.blocks)


def part_of(name: str, heading: str, found: Analysis, blocks: list[Block]) -> Part:
    """The first picture and the head of the first table of an analysis."""
    pictures = module_of(name).pictures(blocks, found)[:1]
    table = found.tables[0]
    return Part(heading, pictures, [replace(table, lines=table.lines[:LONGEST])])


def missing_said(names: list[str]) -> list[str]:
    """The commands that make what is not there."""
    of_rows = [name for name in names if name in OF_ROWS]
    of_weights = [name for name in names if name in OF_WEIGHTS]
    said = []
    if of_rows:
        commands = ", ".join(f"`python -m lottalora analyse {name}`" for name in of_rows)
        said.append(f"No rows yet for {', '.join(of_rows)}; each names the runs that it needs: {commands}.")
    if of_weights:
        commands = ", ".join(f"`python -m lottalora analyse {name} --results kept`" for name in of_weights)
        said.append(
            f"Trained weights are needed for {', '.join(of_weights)}, and no such analysis lies beside these "
            f"rows. `{COMMAND}` keeps them; {commands} analyse them; report with `--results kept` shows it."
        )
    return said
