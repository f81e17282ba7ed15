"""Cancel the jobs of a sweep, whichever submits they came from; finished rows and checkpoints stay."""

import argparse
import json
from pathlib import Path

from lottalora.slurm import client

HELP = "cancel the Slurm jobs of a sweep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="+", metavar="WORD", help="the words that were given to submit")
    parser.add_argument("--results", type=Path, metavar="DIR", help="the same as paths.results=DIR")


def run(asked: argparse.Namespace) -> int:
    from lottalora.sweeps.plan import words_of
    from lottalora.sweeps.progress import sweep_of

    client.check_slurm()
    with sweep_of(words_of(asked)) as (cells, _, master):
        folder = Path(master.paths.results) / "slurm"
    tasks = tasks_of({cell.digest for cell in cells}, folder)
    queued = set(client.ask("squeue", "--noheader", "--array", "--format=%F_%K").split())
    found = sorted(tasks & queued)
    if not found:
        raise ValueError(f"No job of this sweep is in the queue (looked in {folder}).")
    client.ask("scancel", *found)
    print(f"Cancelled {len(found)} jobs: {', '.join(found)}. The same words to submit go on from here.")
    return 0


def tasks_of(digests: set[str], folder: Path) -> set[str]:
    """JOB_INDEX of each task that was sent for one of these cells."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {
        f"{record['job']}_{index}"
        for record in records
        for index, digest in enumerate(record["digests"])
        if digest in digests
    }
