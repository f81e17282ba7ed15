"""What a sweep will take before it is started: runs, hours, memory, disk and energy. Runs nothing."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from lottalora.sweeps.words import add_json
from lottalora.sweeps.words import add_words
from lottalora.sweeps.words import print_json
from lottalora.sweeps.words import words_of

HELP = "runs, hours, memory, disk and energy of a sweep, before it is started"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_words(parser)
    add_json(parser)


def run(asked: argparse.Namespace) -> int:
    planned = plan(words_of(asked))
    if asked.json:
        print_json(planned)
    else:
        show(planned)
    for run, cause in planned["cannot_run"].items():
        print(f"{run} cannot run: {cause}", file=sys.stderr)
    return 1 if planned["cannot_run"] else 0


def plan(words: list[str]) -> dict:
    """The plan as plain data."""
    from lottalora.sweeps.progress import standing
    from lottalora.sweeps.progress import sweep_of

    with sweep_of(words) as (cells, composer, master):
        now = standing(cells, Path(master.paths.results))
        return {
            "sweep": words,
            "runs": len(cells),
            "done": len(now.done),
            "diverged": len(now.diverged),
            "running": len(now.running),
            "failed": len(now.failed),
            "waiting": len(now.waiting),
            "cannot_run": {" ".join(cell.overrides): cell.problem for cell in cells if cell.problem},
            **costs(now.unfinished, composer, master),
        }


def costs(cells: list, composer, master) -> dict:  # noqa: ANN001  kept free of imports, for a fast --help
    """What the cells that are not done will take, all together."""
    from lottalora import rows
    from lottalora.sweeps.cost import WATTS
    from lottalora.sweeps.cost import Estimate
    from lottalora.sweeps.pool import cores
    from lottalora.sweeps.pool import visible_gpus

    devices = [] if master.trainer.accelerator == "cpu" else visible_gpus()
    kind = "gpu" if devices else "cpu"
    workers = workers_of(master) or len(devices) or cores()
    estimate = Estimate(rows.read_all(Path(master.paths.results))[0], composer, kind)
    found = [estimate.of(cell) for cell in cells if not cell.problem]
    hours = sum(cost.seconds or 0 for cost in found) / 3600
    at_once = sorted((cost.memory_mb for cost in found), reverse=True)[:workers]
    return {
        "hours_of_work": round(hours, 4),
        "hours": round(hours / max(1, min(workers, len(found))), 4),
        "workers": workers,
        "hours_from": dict(Counter(cost.source for cost in found)),
        "memory_mb": round(sum(at_once)),
        "disk_mb": round(sum(cost.disk_mb for cost in found), 2),
        "energy_kwh": round(hours * WATTS[kind] / 1000, 4),
        "watts": WATTS[kind],
        "device": kind,
    }


def workers_of(master) -> int | None:  # noqa: ANN001
    from omegaconf import OmegaConf

    return OmegaConf.select(master, "hydra.launcher.workers")


def show(planned: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    one = "GPU" if planned["device"] == "gpu" else "core"
    table = Table(title=" ".join(planned["sweep"]), title_justify="left", show_header=False)
    lines = {
        "runs": f"{planned['runs']:,}",
        "done": f"{planned['done']:,}",
        "of these diverged": f"{planned['diverged']:,}",
        "running": f"{planned['running']:,}",
        "failed, to be repeated": f"{planned['failed']:,}",
        "waiting": f"{planned['waiting']:,}",
        "time left": f"{in_words(planned['hours'])} with {planned['workers']} at once",
        "work left": in_words(planned["hours_of_work"]),
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


def in_words(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.0f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"
