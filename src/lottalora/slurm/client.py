"""What is asked of Slurm's own commands, and their refusals in one line."""

import re
import shutil
import subprocess
from collections.abc import Sequence


def check_slurm() -> None:
    if not shutil.which("sbatch"):
        raise FileNotFoundError(
            "There is no Slurm here: sbatch is not in PATH. Call this on a login node of a cluster, "
            "or run the sweep on this machine: python run.py -m WORD…"
        )


def check_partition(name: str | None) -> None:
    known = ask("sinfo", "--noheader", "--format=%R").split()
    if name and name not in known:
        raise ValueError(f"Unknown partition {name!r}. Known: {', '.join(sorted(set(known)))}.")


def check_array(count: int) -> None:
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    if found and count >= int(found[1]):
        raise ValueError(
            f"{count} runs, but this Slurm takes arrays of at most {int(found[1]) - 1}. "
            "Send the sweep in parts."
        )


def sbatch(command: Sequence[str], script: str) -> str:
    """The number of the job."""
    return ask(*command, given=script).strip().partition(";")[0]


def ask(*command: str, given: str | None = None) -> str:
    """Standard output of one command of Slurm; its refusal is an error of one line."""
    answer = subprocess.run(command, input=given, capture_output=True, text=True)
    if answer.returncode:
        said = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        raise ValueError(f"Slurm refused: {said.replace(f'{command[0]}: error: ', '')}")
    return answer.stdout
