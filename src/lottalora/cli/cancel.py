"""Cancel the jobs of a sweep, whichever submits they came from; finished rows and checkpoints stay."""

import argparse
from pathlib import Path

from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import overrides_of

HELP = "cancel the Slurm jobs of a sweep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser)


def run(asked: argparse.Namespace) -> int:
    """Cancel the queued jobs of the sweep; raise ValueError if there are none."""
    from lottalora.sweeps.progress import sweep_of
    from lottalora.sweeps.slurm import client

    client.check_slurm()
    with sweep_of(overrides_of(asked)) as (cells, _, master):
        folder = Path(master.paths.results) / "slurm"
    digests = {cell.digest for cell in cells}
    found = sorted(task for task, digest in client.queued(folder).items() if digest in digests)
    if not found:
        raise ValueError(f"No job of this sweep is in the queue (looked in {folder}).")
    client.ask("scancel", *found)
    print(f"Cancelled {len(found)} jobs: {', '.join(found)}. The same words to submit go on from here.")
    return 0
