"""Send the unfinished runs of a sweep to Slurm as one array of jobs, one run each, and return at once."""

import json
import shlex
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from lottalora.distributed.environment import RUN
from lottalora.results import rows
from lottalora.results.atomic_write import write_whole
from lottalora.results.command import literal
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.progress import sweep_state
from lottalora.sweeps.slurm import client

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
ENDLESS = ("INFINITE", "UNLIMITED")  # words of Slurm for no limit of time
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


@dataclass(frozen=True, kw_only=True)
class Request:
    """The resources of each job of an array.

    Args:
        partition: None for the cluster's default.
        time: limit, as Slurm writes it.
        signal_lead: seconds of the limit that are kept for the checkpoint.
        cpus, gpus: of a job.
        array_limit: jobs at once; None for any number.
    """

    partition: str | None
    time: str
    signal_lead: int
    cpus: int
    gpus: int
    array_limit: int | None


def open_cells(
    cells: Sequence[Cell], results: Path, *, queued: Collection[str], force: bool = False
) -> list[Cell]:
    """Return the cells that are neither done, running nor queued; with `force` also those that are done.

    Raises:
        ValueError: a cell that cannot run.
    """
    now = sweep_state(cells, results)
    for cell in now.failed:
        if cell.problem:
            raise ValueError(f"{' '.join(cell.overrides)} cannot run: {cell.problem}")
    again = now.done if force else []
    return [cell for cell in [*now.failed, *now.waiting, *again] if cell.digest not in queued]


def check_numbers(*, cpus: int, array_limit: int | None, time: str) -> None:
    """Refuse what Slurm would not take: numbers below 1, and a limit of time that is not in its form."""
    for flag, number in (("--cpus", cpus), ("--array-limit", array_limit)):
        if number is not None and number < 1:
            raise ValueError(f"{flag} must be a whole number, 1 or more, got {number}.")
    if seconds_of(time) is None and time.upper() not in ENDLESS:
        raise ValueError(
            f"--time must be minutes, hours:minutes:seconds or days-hours:minutes:seconds, got {time!r}. "
            "Type --time 24:00:00."
        )


def check_lead(lead: int, time: str) -> None:
    """Refuse a lead that leaves a job no time."""
    limit = seconds_of(time) or None  # 0: Slurm sets no limit
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


def send(request: Request, cells: Sequence[Cell], results: Path, *, overrides: Sequence[str]) -> list[str]:
    """Submit one array, or several where Slurm takes none so long; return the job numbers."""
    largest = client.largest_array()
    arrays = [cells[begin : begin + largest] for begin in range(0, len(cells), largest)]
    if request.array_limit:
        request = replace(request, array_limit=max(1, request.array_limit // len(arrays)))
    return [send_array(request, array, results, overrides) for array in arrays]


def send_array(request: Request, cells: Sequence[Cell], results: Path, overrides: Sequence[str]) -> str:
    """Submit one array and keep a record by which its tasks are found; return the job number."""
    folder = results / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    job = client.sbatch(sbatch_of(request, len(cells), folder), script_of(cells, results))
    record = {"job": job, "words": list(overrides), "digests": [cell.digest for cell in cells]}
    write_whole(folder / f"{job}.json", json.dumps(record, indent=1) + "\n")
    return job


def script_of(cells: Sequence[Cell], results: Path) -> str:
    """The batch script, which holds the overrides of every cell, so that it needs no other file."""
    tasks = []
    for index, cell in enumerate(cells):
        log = rows.run_folder(cell.identity, results) / "log.txt"
        overrides = [each for each in cell.overrides if not each.startswith("paths.results=")]
        overrides.append(f"paths.results={literal(str(results))}")
        tasks.append(f"{index}) words=({shlex.join(overrides)}); log={shlex.quote(str(log))} ;;")
    return SCRIPT.format(
        tasks="\n".join(tasks),
        folder=shlex.quote(str(results / "slurm")),
        command=shlex.join(RUN),
        restarts=RESTARTS,
    )


def sbatch_of(request: Request, count: int, folder: Path) -> list[str]:
    """Return the sbatch command of an array of `count` jobs."""
    at_once = f"%{request.array_limit}" if request.array_limit else ""
    return [
        "sbatch",
        "--parsable",
        "--job-name=lottalora",
        f"--array=0-{count - 1}{at_once}",
        f"--time={request.time}",
        f"--cpus-per-task={request.cpus}",
        *([f"--gres=gpu:{request.gpus}"] if request.gpus else []),
        *([f"--partition={request.partition}"] if request.partition else []),
        f"--signal=B:USR1@{request.signal_lead}",
        "--requeue",
        "--open-mode=append",
        f"--output={folder}/%A_%a.log",
    ]
