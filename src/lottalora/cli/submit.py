"""Send the unfinished runs of a sweep to Slurm as one array of jobs, one run each, and return at once."""

import argparse
import shlex
from pathlib import Path

from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import overrides_of
from lottalora.messages import counted

HELP = "send a sweep to Slurm as one array of jobs"
LEAD = 90  # seconds between USR1 and the time limit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser)
    parser.add_argument("--partition", help="default: the cluster's own")
    parser.add_argument("--time", default="24:00:00", help="limit of a job, as Slurm writes it (24:00:00)")
    parser.add_argument("--signal-lead", type=int, default=LEAD, metavar="SECONDS",
                        help=f"of the limit kept for the checkpoint ({LEAD}); at most 60 more")  # fmt: skip
    parser.add_argument("--cpus", type=int, default=1, help="cores for each of trainer.devices (1)")
    parser.add_argument(
        "--gpus", type=int, default=0, choices=(0, 1), help="GPUs for each of trainer.devices (0)"
    )
    parser.add_argument("--array-limit", type=int, metavar="N", help="jobs at once (no limit)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the command and the script, send nothing"
    )


def run(asked: argparse.Namespace) -> int:
    """Submit the unfinished runs of the sweep; with --dry-run, print what would be sent."""
    from lottalora.results import rows
    from lottalora.sweeps.progress import sweep_of
    from lottalora.sweeps.slurm import client
    from lottalora.sweeps.slurm import submit
    from lottalora.sweeps.sweep import refuse_other_weights

    submit.check_numbers(cpus=asked.cpus, array_limit=asked.array_limit, time=asked.time)
    submit.check_lead(asked.signal_lead, asked.time)
    overrides = overrides_of(asked)
    with sweep_of(overrides) as (cells, composer, master):
        results, devices = Path(master.paths.results).resolve(), master.trainer.devices
        force = master.force
        done = {} if force else rows.read_done(results, {cell.digest for cell in cells})[0]
        refuse_other_weights(cells, done, composer)
        if master.ensemble:
            raise ValueError("Slurm runs each cell as a job of its own, without ensemble=true. Leave it out.")
    request = submit.Request(
        partition=asked.partition,
        time=asked.time,
        signal_lead=asked.signal_lead,
        cpus=asked.cpus * devices,
        gpus=asked.gpus * devices,
        array_limit=asked.array_limit,
    )
    if not asked.dry_run:
        client.check_slurm()
        client.check_partition(asked.partition)
    queued = set() if asked.dry_run else set(client.queued(results / "slurm").values())
    todo = submit.open_cells(cells, results, queued=queued, force=force)
    busy = len(cells) - len(done) - len(todo)
    states = f"{len(done)} done, {busy} running or in the queue, {len(todo)} to send"
    counts = f"{counted(len(cells), 'run')}: {states}"
    if not todo:
        print(f"{counts}. Nothing was sent.")
    elif asked.dry_run:
        sbatch = submit.sbatch_of(request, len(todo), results / "slurm")
        print(counts, shlex.join(sbatch), "", submit.script_of(todo, results), sep="\n")
    else:
        jobs = submit.send(request, todo, results, overrides=asked.overrides)
        print(f"{counts}. {'Job' if len(jobs) == 1 else 'Jobs'} {', '.join(jobs)}. Next:")
        for command in ("status", "cancel"):
            print(f"  python -m lottalora {command} {shlex.join(overrides)}")
    return 0
