"""Kill a sweep of short runs with SIGKILL, its whole process group, at random moments; repeat it; check it.

python scripts/kill_sweep.py --results EMPTY_FOLDER      64 runs, 20 kills: about five minutes on two cores
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from lottalora.results import claims
from lottalora.results import rows

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--runs", type=int, default=64, help="one seed each")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    if next(asked.results.glob("rows/*/*/*.json"), None):
        raise SystemExit(f"{asked.results} holds rows already. Name an empty folder.")
    moments = random.Random(asked.seed)
    for number in range(asked.kills):
        early, moment = moments.random() < 0.25, moments.uniform(0, asked.longest)
        alive = killed_after(moment, asked, early=early)
        since = "the start" if early else "its first run began"
        note = "" if alive else ", had ended before"
        print(
            f"kill {number + 1}: {moment:.1f} s after {since}{note}; {count(asked.results)} rows", flush=True
        )
    code = started(asked).wait()
    return report(asked, code)


def started(asked: argparse.Namespace) -> subprocess.Popen:
    words = ["data=digits", "model.size=tiny", "trainer.epochs=1", "rank=1", f"seed=range({asked.runs})"]
    command = [sys.executable, "run.py", "-m", *words, f"paths.results={asked.results.resolve()}"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=quiet, stderr=quiet)


def killed_after(seconds: float, asked: argparse.Namespace, *, early: bool) -> bool:
    """Whether the sweep was still running when its group was killed, some seconds after its first run began,
    or, early, after its own start, when it may still be importing."""
    process = started(asked)
    while not early and process.poll() is None and not claims.all_held(asked.results):
        time.sleep(0.05)
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def count(results: Path) -> int:
    return len(list(results.glob("rows/*/*/*.json")))


def report(asked: argparse.Namespace, code: int) -> int:
    found, problems = rows.read_all(asked.results)
    seeds = sorted(row["seed"] for row in found)
    logs = [path.read_text() for path in asked.results.glob("runs/*/log.txt")]
    twice = sum(log.count("\naccuracy ") + log.startswith("accuracy ") > 1 for log in logs)
    begun = sum(log.count("begin ") for log in logs)
    held = claims.all_held(asked.results)
    print(f"{len(found)} rows of {asked.runs}, {len(problems)} damaged, {twice} finished twice")
    print(f"{begun} begun, {len(held)} claims still held, exit code {code}")
    whole = seeds == list(range(asked.runs)) and not problems and not twice and not held and code == 0
    print("whole" if whole else "NOT WHOLE", *problems, sep="\n")
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
