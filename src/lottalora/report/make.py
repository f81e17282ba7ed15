"""The whole report: rows in, tables and figures out."""

from collections.abc import Sequence
from pathlib import Path

from lottalora.messages import counted
from lottalora.report.blocks import Block
from lottalora.report.files import naming_out
from lottalora.report.files import remove_stale
from lottalora.report.from_rows import blocks_of
from lottalora.report.latex import DEFAULT
from lottalora.report.latex import latex
from lottalora.report.page.control_sections import control_said
from lottalora.report.tables import markdown
from lottalora.report.tables import recovery_csv
from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import Row


def write_report(
    blocks: list[Block], summary: str, out: Path, columns: Sequence[str] | None = None
) -> list[Path]:
    """Write tables/recovery.{md,csv,tex} and figures/*.{png,svg,csv} below `out`.

    Args:
        blocks: of the rows.
        summary: how many rows and tables.
        out: a folder.
        columns: of the LaTeX tables; None: latex.DEFAULT.

    Raises:
        OSError: the folder cannot be written; one sentence that names it.
        ValueError: a column that does not exist, or too many of them.
    """
    texts = {
        "md": markdown(blocks, "\n\n".join([summary, *control_said(blocks)])),
        "csv": recovery_csv(blocks),
        "tex": latex(blocks, columns or DEFAULT),
    }
    with naming_out(out):
        return write_tables(texts, out / "tables") + draw_figures(blocks, out / "figures")


def summary_of(rows: list[Row], blocks: list[Block], problems: list[str]) -> str:
    """How many rows are behind the report, and how many could not be."""
    said = f"{counted(len(rows), 'row')} in {counted(len(blocks), 'table')}"
    return f"{said}; {counted(len(problems), 'unreadable file')} left out." if problems else f"{said}."


def write_tables(texts: dict[str, str], folder: Path) -> list[Path]:
    """Write the recovery table in each format and return the paths."""
    paths = [folder / f"recovery.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text)
    return paths


def draw_figures(blocks: list[Block], folder: Path) -> list[Path]:
    """Every picture that rows exist for; those of rows that are gone go too.

    Matplotlib is half a second that tables need not wait for.
    """
    from lottalora.report.names import block_names
    from lottalora.report.pictures.beta import beta_picture
    from lottalora.report.pictures.families import families_picture
    from lottalora.report.pictures.headline import headline_picture
    from lottalora.report.pictures.picture import save
    from lottalora.report.pictures.rank_curves import rank_picture

    makers = {"rank_curve": rank_picture, "families": families_picture, "beta": beta_picture}
    names = block_names(blocks)
    pictures = [headline_picture(blocks)]
    for block in blocks:
        made = [make(block, f"{kind}_{names[id(block)]}") for kind, make in makers.items()]
        pictures += [picture for picture in made if picture]
    written = [path for picture in pictures for path in save(picture, folder)]
    remove_stale(folder, written)
    return written


__all__ = ["blocks_of", "summary_of", "write_report"]
