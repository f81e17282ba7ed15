"""The whole report: rows in, tables and figures out."""

import hashlib
import json
import re
from pathlib import Path

from lottalora.report.blocks import Block
from lottalora.report.blocks import blocks_of
from lottalora.report.files import naming_out
from lottalora.report.files import remove_stale
from lottalora.report.tables import latex
from lottalora.report.tables import markdown
from lottalora.report.tables import recovery_csv
from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import Row


def write_report(blocks: list[Block], summary: str, out: Path) -> list[Path]:
    """Write tables/recovery.{md,csv,tex} and figures/rank_curve_*.{png,svg,csv} below `out`.

    Raises:
        OSError: the folder cannot be written; one sentence that names it.
    """
    texts = {"md": markdown(blocks, summary), "csv": recovery_csv(blocks), "tex": latex(blocks)}
    with naming_out(out):
        return write_tables(texts, out / "tables") + draw_figures(blocks, out / "figures")


def summary_of(rows: list[Row], blocks: list[Block], problems: list[str]) -> str:
    """How many rows are behind the report, and how many could not be."""
    said = f"{counted(len(rows), 'row')} in {counted(len(blocks), 'table')}"
    return f"{said}; {counted(len(problems), 'unreadable file')} left out." if problems else f"{said}."


def write_tables(texts: dict[str, str], folder: Path) -> list[Path]:
    paths = [folder / f"recovery.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text)
    return paths


def draw_figures(blocks: list[Block], folder: Path) -> list[Path]:
    """Every picture that rows exist for; those of rows that are gone go too.

    Matplotlib is half a second that tables need not wait for.
    """
    from lottalora.report.beta import draw_beta
    from lottalora.report.figures import draw_rank_curve
    from lottalora.report.recovery_bars import draw_recovery_bars

    drawn = [draw_recovery_bars(blocks, folder)]
    for block in blocks:
        name = figure_name(block, blocks)
        drawn.append(draw_rank_curve(block, name, folder))
        drawn.append(draw_beta(block, name.replace("rank_curve", "beta", 1), folder))
    written = [path for paths in drawn for path in paths]
    remove_stale(folder, written)
    return written


def figure_name(block: Block, blocks: list[Block]) -> str:
    """rank_curve_MODEL_DATA_SIZE, the recipe if it is not the paper's, a digest where names would collide."""
    name = plain_name(block)
    if sum(plain_name(other) == name for other in blocks) == 1:
        return name
    apart = [block.changed, block.precision, block.full, block.fingerprint, block.metric.of_part]
    told_apart = json.dumps(apart, sort_keys=True)
    return f"{name}_{hashlib.sha256(told_apart.encode()).hexdigest()[:6]}"


def plain_name(block: Block) -> str:
    recipe = "" if block.recipe == "paper" else block.recipe
    metric = "" if block.own else block.metric.of_part
    parts = [
        "rank_curve",
        block.model,
        block.data,
        block.size,
        block.stand_in.removeprefix("built-in "),
        recipe,
        metric,
    ]
    return re.sub(r"[^\w.-]", "_", "_".join(part for part in parts if part))


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


__all__ = ["blocks_of", "summary_of", "write_report"]
