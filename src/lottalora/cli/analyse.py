"""Analyse finished rows: tables on the terminal; with figures and as files in RESULTS/analyses/NAME/."""

import argparse
import difflib
from importlib import import_module
from pathlib import Path

from lottalora.cli.chosen import add_choice
from lottalora.cli.chosen import chosen
from lottalora.cli.chosen import refuse_files

HELP = "tests, intervals and other analyses of finished rows"
# name → module with `analyse(blocks) -> Analysis` and `pictures(blocks, found)`; what it finds
ANALYSES = {
    "statistics": (
        "lottalora.report.analyses.statistics",
        "intervals; tests against full training and the paper; the power they had",
    ),
    "rank": ("lottalora.report.analyses.least_rank", "r*(ε), the least rank within ε of full training"),
    "beta": ("lottalora.report.analyses.beta", "β of every arm beside what weight decay alone makes of it"),
    "curves": ("lottalora.report.analyses.curves", "validation score and β over the epochs"),
    "effects": (
        "lottalora.report.analyses.effects",
        "each option against the scaffold of its rank, paired",
    ),
    "budget": (
        "lottalora.report.analyses.budget",
        "score against all trained parameters, embeddings included",
    ),
    "cost": ("lottalora.report.analyses.cost", "FLOPs, memory and shipped bytes, predicted beside measured"),
    "seeds": ("lottalora.report.analyses.seeds", "the spread over scaffold seeds and over training seeds"),
    "gating": ("lottalora.report.analyses.gating", "what each scaffold of a gated net answers to each digit"),
    "spectra": (
        "lottalora.report.analyses.spectra",
        "singular values of W_seed; of kept weights: updates, their truncation, subspaces, amplification",
    ),
    "paths": (
        "lottalora.report.analyses.paths",
        "frozen path against adapter path, and β = 0, of kept weights",
    ),
    "similarity": (
        "lottalora.report.analyses.similarity",
        "CKA with full training by layer, of kept weights",
    ),
    "bytes": ("lottalora.report.analyses.bytes", "score against shipped bytes by precision, of kept weights"),
}
OF_WEIGHTS = ("spectra", "paths", "similarity", "bytes")  # these take the kept weights beside the blocks
NEEDS_NO_ROWS = "spectra"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    known = "; ".join(f"{name}: {about}" for name, (_, about) in ANALYSES.items())
    parser.add_argument("name", metavar="NAME", help=known)
    add_choice(parser)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                        help="folder that holds rows/ (default: results)")  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where analyses/ goes (default: as --results)"
    )


def run(asked: argparse.Namespace) -> int:
    """Analyse, print the tables and, if no rows were chosen, write them; 1 if a row could not be read."""
    check_name(asked.name)
    refuse_files(asked, "out")
    from lottalora.cli.arguments import readable_rows
    from lottalora.report.analyses.output import show
    from lottalora.report.analyses.output import write
    from lottalora.report.from_rows import blocks_of
    from lottalora.report.pictures.picture import save
    from lottalora.report.screen import console_for_tables
    from lottalora.results.rows import read_all

    rows, problems = (read_all if asked.name == NEEDS_NO_ROWS else readable_rows)(asked.results)
    module = import_module(ANALYSES[asked.name][0])
    blocks = blocks_of(chosen(rows, asked.overrides))
    kept = kept_below(asked.results) if asked.name in OF_WEIGHTS else ()
    found = module.analyse(blocks, *kept)
    console = console_for_tables()
    show(found, console)
    if asked.overrides:
        return 1 if problems else 0
    folder = (asked.out or asked.results) / "analyses" / asked.name
    paths = write(found, folder)
    paths += [path for picture in module.pictures(blocks, found) for path in save(picture, folder)]
    console.print("Written:", *(str(path) for path in paths), sep="\n  ", markup=False, soft_wrap=True)
    return 1 if problems else 0


def kept_below(results: Path) -> tuple:
    """The kept weights of a results folder, as the one further argument of an analysis."""
    from lottalora.artifacts.weights import Kept

    return (Kept(results),)


def check_name(name: str) -> None:
    """Raise ValueError for an unknown analysis, with the nearest name."""
    if name not in ANALYSES:
        near = difflib.get_close_matches(name, ANALYSES, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown analysis {name!r}.{meant} Known: {', '.join(sorted(ANALYSES))}.")
