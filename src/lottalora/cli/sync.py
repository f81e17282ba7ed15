"""Send finished rows and offline runs to W&B, each once. A row without a W&B run gets one made of it."""

import argparse
import os
import sys
from pathlib import Path

from lottalora.cli.arguments import check_results

HELP = "send finished rows and offline runs to W&B"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                        help="folder that holds rows/ and runs/ (default: results)")  # fmt: skip
    parser.add_argument("--project", default="lottalora", help="at W&B, for rows (default: lottalora)")
    parser.add_argument("--entity", help="user or team at W&B (default: your own)")
    parser.add_argument("--offline", action="store_true", default=os.environ.get("WANDB_MODE") == "offline",
                        help="only write the offline runs, send none (default: as WANDB_MODE)")  # fmt: skip


def run(asked: argparse.Namespace) -> int:
    """1 if a row cannot be read or a run was not sent; the others are, and a repeated call sends the rest."""
    from lottalora.results import claims
    from lottalora.results import rows
    from lottalora.tracking import sync

    check_results(asked.results)
    if not asked.offline:
        sync.check_server()
    found, problems = rows.read_all(asked.results)
    held = claims.all_held(asked.results)
    lacking = [row for row in found if row["digest"] not in held and not sync.stands(row, asked.results)]
    if lacking and not asked.offline:
        there = sync.at_server([row["digest"] for row in lacking], asked.project, asked.entity)
        lacking = [row for row in lacking if row["digest"] not in there]
    for row in lacking:
        sync.write_run(row, asked.results, project=asked.project, entity=asked.entity)
    waiting = [folder for folder in sync.unsent(asked.results) if sync.digest_of(folder) not in held]
    print(f"{len(found)} rows, {len(lacking)} of them without a W&B run: written offline.")
    left = waiting if asked.offline else sync.send(waiting)
    print(f"{len(waiting)} offline runs: {len(waiting) - len(left)} sent, {len(left)} not sent.")
    if held:
        print(f"{len(held)} runs are still under way: left for a later call.")
    if not asked.offline:
        problems += [f"W&B did not take {folder}; `wandb sync {folder}` says why." for folder in left]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0
