"""Where a sweep stands: done, running, failed with the cause, waiting, and the time that is left."""

import argparse
import shlex
from pathlib import Path

from lottalora.cli.arguments import add_json
from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import check_results
from lottalora.cli.arguments import overrides_of
from lottalora.cli.arguments import print_json

HELP = "done, running, failed and waiting runs of a sweep, with the time left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser, none="all of the results folder")
    add_json(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the status of a sweep, or of a results folder; return 1 if a run of the sweep cannot be run."""
    from lottalora.sweeps.status import of_folder
    from lottalora.sweeps.status import of_sweep

    if asked.results:
        check_results(asked.results)
    if asked.overrides:
        found = of_sweep(overrides_of(asked))
    else:
        results = asked.results or Path("results")
        check_results(results)
        found = of_folder(results)
    if asked.json:
        print_json(found)
    else:
        show(found)
    return 1 if found["cannot_run"] else 0


def show(found: dict) -> None:
    """Print the status as a table, then what runs, what failed and what diverged."""
    from rich.console import Console
    from rich.table import Table

    from lottalora.tracking.bars import duration

    console = Console()
    table = Table(title=shlex.join(found["sweep"]) or None, title_justify="left", show_header=False)
    table.add_row("runs", f"{found['runs']:,}")
    table.add_row("done", f"{found['done']:,}")
    table.add_row("of these diverged", f"{len(found['diverged']):,}")
    table.add_row("running", f"{len(found['running']):,}")
    table.add_row("failed", f"{len(found['failed']):,}")
    if found["unreadable"]:
        table.add_row("unreadable files", f"{len(found['unreadable']):,}")
    if found["sweep"]:
        table.add_row("waiting", f"{found['waiting']:,}")
        table.add_row("time left", duration(3600 * found["hours"]))
    console.print(table, markup=False)
    for each in found["running"]:
        where = (
            f"process {each['pid']} on {each['host']} since {each['start']}"
            if each.get("host")
            else "another process"
        )
        console.print(f"running: {each['run']}, {where}", markup=False, soft_wrap=True, highlight=False)
    for each in found["unreadable"]:
        console.print(f"unreadable: {each}", markup=False, soft_wrap=True, highlight=False)
    for each in found["diverged"]:
        console.print(f"diverged: {each}", markup=False, soft_wrap=True, highlight=False)
    for each in found["failed"]:
        log = f" (log: {each['log']})" if each["log"] else ""
        console.print(
            f"failed: {each['run']}: {each['cause']}{log}", markup=False, soft_wrap=True, highlight=False
        )
