"""Send the unfinished runs of a sweep to Slurm as one array of jobs, one run each, and return at once."""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lottalora.cli.arguments import add_words
from lottalora.cli.arguments import words_of
from lottalora.results.atomic_write import write_whole
from lottalora.sweeps.slurm import client

HELP = "send a sweep to Slurm as one array of jobs"
LEAD = 90  # seconds between USR1 and the time limit
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
RESTARTS = 100  # of one job, after which it is not put back into the queue
SCRIPT = """\
#!/bin/bash
# Runs one cell of a sweep; a stopped one goes back into the queue and goes on from its checkpoint.
case $SLURM_ARRAY_TASK_ID in
{tasks}
esac
own={folder}/${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID.log
mkdir -p "${{log%/*}}"
echo "job ${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID, start ${{SLURM_RESTART_COUNT:-0}}" >>"$log"
trap 'kill -USR1 "$run"' USR1
trap 'kill -TERM "$run"' TERM
{command} "${{words[@]}}" >>"$log" 2>&1 &
run=$!
while kill -0 "$run" 2>/dev/null; do wait "$run"; done
wait "$run"
code=$?
[[ -s $own ]] || rm -f "$own"
# 75: it has written its checkpoint; 138 and 143: the signal came before it listened for one.
if [[ $code =~ ^(75|138|143)$ && ${{SLURM_RESTART_COUNT:-0}} -lt {restarts} ]]; then
    state=$(squeue --noheader --format=%T --jobs="$SLURM_JOB_ID")
    [[ $state == RUNNING ]] && scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_words(parser)
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
    from lottalora.sweeps.progress import standing
    from lottalora.sweeps.progress import sweep_of

    check_lead(asked.signal_lead, asked.time)
    words = words_of(asked)
    with sweep_of(words) as (cells, _, master):
        results = Path(master.paths.results).resolve()
        asked.cpus, asked.gpus = (each * master.trainer.devices for each in (asked.cpus, asked.gpus))
        now = standing(cells, results)
    for cell in now.failed:
        if cell.problem:
            raise ValueError(f"{' '.join(cell.overrides)} cannot run: {cell.problem}")
    folder = results / "slurm"
    if not asked.dry_run:
        client.check_slurm()
        client.check_partition(asked.partition)
    queued = set() if asked.dry_run else set(client.queued(folder).values())
    todo = [cell for cell in [*now.failed, *now.waiting] if cell.digest not in queued]
    waiting = len(cells) - len(now.done) - len(todo)
    counts = (
        f"{len(cells)} runs: {len(now.done)} done, {waiting} running or in the queue, {len(todo)} to send"
    )
    if not todo:
        print(f"{counts}. Nothing was sent.")
    elif asked.dry_run:
        print(counts, shlex.join(sbatch_of(asked, len(todo), folder)), "", script_of(todo, results), sep="\n")
    else:
        jobs = send(asked, todo, results)
        print(f"{counts}. {'Job' if len(jobs) == 1 else 'Jobs'} {', '.join(jobs)}. Next:")
        for command in ("status", "cancel"):
            print(f"  python -m lottalora {command} {shlex.join(words)}")
    return 0


def check_lead(lead: int, time: str) -> None:
    """Refuse a lead that leaves a job no time. A limit that we cannot read is left to Slurm."""
    limit = seconds_of(time)
    if lead < 1 or limit is not None and lead >= limit:
        raise ValueError(
            f"--signal-lead must be from 1 to below the {limit} seconds of --time {time}, got {lead}."
            if limit
            else f"--signal-lead must be 1 or more seconds, got {lead}."
        )


def seconds_of(time: str) -> int | None:
    """Slurm's minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes and so on."""
    days, dash, rest = time.rpartition("-")
    parts = rest.split(":")
    units = "dhms"[1 : 1 + len(parts)] if dash else {1: "m", 2: "ms", 3: "hms"}.get(len(parts), "")
    numbers = [*([days] if dash else []), *parts]
    units = ("d" if dash else "") + units
    if len(units) != len(numbers) or not all(number.isdecimal() for number in numbers):
        return None
    return sum(int(number) * UNITS[unit] for number, unit in zip(numbers, units, strict=True))


def send(asked: argparse.Namespace, cells: Sequence, results: Path) -> list[str]:
    """The numbers of the jobs: one array, or several where Slurm does not take one so long."""
    largest = client.largest_array()
    arrays = [cells[begin : begin + largest] for begin in range(0, len(cells), largest)]
    if asked.array_limit:
        asked.array_limit = max(1, asked.array_limit // len(arrays))
    return [send_array(asked, array, results) for array in arrays]


def send_array(asked: argparse.Namespace, cells: Sequence, results: Path) -> str:
    """The number of the job, of which a record is kept, so that its tasks can be found by their runs."""
    folder = results / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    job = client.sbatch(sbatch_of(asked, len(cells), folder), script_of(cells, results))
    record = {"job": job, "words": asked.words, "digests": [cell.digest for cell in cells]}
    write_whole(folder / f"{job}.json", json.dumps(record, indent=1) + "\n")
    return job


def script_of(cells: Sequence, results: Path) -> str:
    """The batch script, which holds the words of every cell, so that it needs no other file."""
    from lottalora.errors import CONF
    from lottalora.results.rows import run_name

    tasks = []
    for index, cell in enumerate(cells):
        log = results / "runs" / run_name(cell.identity) / "log.txt"
        words = [word for word in cell.overrides if not word.startswith("paths.results=")]
        words.append(f"paths.results={results}")
        tasks.append(f"{index}) words=({shlex.join(words)}); log={shlex.quote(str(log))} ;;")
    return SCRIPT.format(
        tasks="\n".join(tasks),
        folder=shlex.quote(str(results / "slurm")),
        command=shlex.join([sys.executable, str(CONF.parent / "run.py")]),
        restarts=RESTARTS,
    )


def sbatch_of(asked: argparse.Namespace, count: int, folder: Path) -> list[str]:
    at_once = f"%{asked.array_limit}" if asked.array_limit else ""
    return [
        "sbatch",
        "--parsable",
        "--job-name=lottalora",
        f"--array=0-{count - 1}{at_once}",
        f"--time={asked.time}",
        f"--cpus-per-task={asked.cpus}",
        *([f"--gres=gpu:{asked.gpus}"] if asked.gpus else []),
        *([f"--partition={asked.partition}"] if asked.partition else []),
        f"--signal=B:USR1@{asked.signal_lead}",
        "--requeue",
        "--open-mode=append",
        f"--output={folder}/%A_%a.log",
    ]
