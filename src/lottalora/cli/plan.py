"""What a sweep will take before it is started: runs, hours, memory, disk and energy. Runs nothing."""

import argparse
import gc
import shlex
import sys

from lottalora.cli.arguments import add_json
from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import overrides_of
from lottalora.cli.arguments import print_json

HELP = "runs, hours, memory, disk and energy of a sweep, before it is started"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser)
    add_json(parser)


def run(asked: argparse.Namespace) -> int:
    """Print the plan; return 1 if a run of the sweep cannot be run."""
    from lottalora.sweeps.plan import plan

    gc.disable()  # a plan keeps nearly all that it makes, so looking for garbage takes time and finds none
    try:
        planned = plan(overrides_of(asked))
    finally:
        gc.enable()
    if asked.json:
        print_json(planned)
    else:
        show(planned)
    for run, cause in planned["cannot_run"].items():
        print(f"{run} cannot run: {cause}", file=sys.stderr)
    return 1 if planned["cannot_run"] else 0


def show(planned: dict) -> None:
    """Print the plan as a table."""
    from rich.console import Console
    from rich.table import Table

    from lottalora.tracking.bars import duration

    one = "GPU" if planned["device"] == "gpu" else "core"
    table = Table(title=shlex.join(planned["sweep"]), title_justify="left", show_header=False)
    lines = {
        "runs": f"{planned['runs']:,}",
        "done": f"{planned['done']:,}",
        "of these diverged": f"{planned['diverged']:,}",
        "running": f"{planned['running']:,}",
        "failed, to be repeated": f"{planned['failed']:,}",
        "waiting": f"{planned['waiting']:,}",
        "time left": f"{duration(3600 * planned['hours'])} with {planned['workers']} at once",
        "work left": duration(3600 * planned["hours_of_work"]),
        "estimated from": "; ".join(
            f"{count} runs: {source}" for source, count in planned["hours_from"].items()
        ),
        "memory": f"{planned['memory_mb']:,} MB, all that run at once",
        "disk": f"{planned['disk_mb']:,.1f} MB",
        "energy": f"{planned['energy_kwh']:.3f} kWh, assuming {planned['watts']:.0f} W for a busy {one}",
    }
    if unknown := planned["hours_from"].get("unknown"):
        lines |= {name: f"unknown for {unknown} runs" for name in ("time left", "work left", "energy")}
    for name, value in lines.items():
        table.add_row(name, value or "nothing is left")
    Console().print(table, markup=False)
