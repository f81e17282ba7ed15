"""Call Slurm's commands, and report their errors in one line."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lottalora.messages import run_command

SCRIPT_FITS = 5000  # tasks whose overrides fit into one batch script, which Slurm limits to 4 MB


def check_slurm() -> None:
    """Raise FileNotFoundError where `sbatch` is not installed."""
    if not shutil.which("sbatch"):
        raise FileNotFoundError(
            "There is no Slurm here: sbatch is not in PATH. Call this on a login node of a cluster, "
            f"or run the sweep on this machine: {run_command()} -m WORD…"
        )


def check_partition(name: str | None) -> None:
    """Raise ValueError for a partition that the cluster does not have."""
    known = ask("sinfo", "--noheader", "--format=%R").split()
    if name and name not in known:
        raise ValueError(f"Unknown partition {name!r}. Known: {', '.join(sorted(set(known)))}.")


def largest_array() -> int:
    """Return the largest number of tasks in one array of this Slurm."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return min(int(found[1]), SCRIPT_FITS) if found else SCRIPT_FITS


def sbatch(command: Sequence[str], script: str) -> str:
    """The number of the job."""
    return ask(*command, given=script).strip().partition(";")[0]


def queued(folder: Path) -> dict[str, str]:
    """JOB_INDEX → digest of its run, for each task in the queue that a record in `folder` tells of."""
    present = set(ask("squeue", "--noheader", "--array", "--format=%F_%K").split())
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {
        f"{record['job']}_{index}": digest
        for record in records
        for index, digest in enumerate(record["digests"])
        if f"{record['job']}_{index}" in present
    }


def ask(*command: str, given: str | None = None) -> str:
    """Run a Slurm command and return its standard output; raise a one-line error if it fails."""
    answer = subprocess.run(command, input=given, capture_output=True, text=True)
    if answer.returncode:
        said = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        raise ValueError(f"Slurm refused: {said.replace(f'{command[0]}: error: ', '')}")
    return answer.stdout
