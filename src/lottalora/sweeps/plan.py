"""What a sweep will take before it is started: runs, hours, memory, disk and energy. Runs nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora import CONF
from lottalora.config.loader import interpolations_parsed_once
from lottalora.distributed.cores import cores
from lottalora.results import rows
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import Composer
from lottalora.sweeps.cost import WATTS
from lottalora.sweeps.cost import Estimate
from lottalora.sweeps.pool import check_workers
from lottalora.sweeps.pool import visible_gpus
from lottalora.sweeps.progress import sweep_of
from lottalora.sweeps.progress import sweep_state


@interpolations_parsed_once()
def plan(overrides: list[str]) -> dict:
    """Return the plan of `run.py -m OVERRIDES` as plain data."""

    with sweep_of(overrides) as (cells, composer, master):
        now = sweep_state(cells, Path(master.paths.results))
        return {
            "sweep": overrides,
            "runs": len(cells),
            "done": len(now.done),
            "diverged": len(now.diverged),
            "running": len(now.running),
            "failed": len(now.failed),
            "waiting": len(now.waiting),
            "cannot_run": {" ".join(cell.overrides): cell.problem for cell in cells if cell.problem},
            **costs(now.unfinished, composer, master),
        }


def plan_of_each(overrides: Sequence[str] = ()) -> Iterator[dict]:
    """The plan of every file of sweeps/, with its name and what its header says first."""
    for file in sorted((CONF / "sweeps").glob("*.yaml")):
        yield {"name": file.stem, "title": title_of(file), **plan([f"sweeps={file.stem}", *overrides])}


def title_of(file: Path) -> str:
    """The first sentence of a sweep's header, and the second where the first is a question."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8").splitlines())
    header = " ".join(line.lstrip("# ") for line in lines).removeprefix("@package _global_ ")
    return re.match(r"([^?]*?\? )?.*?[.](?= |$)", header)[0]


def costs(cells: Sequence[Cell], composer: Composer, master: DictConfig) -> dict:
    """Add up what unfinished cells will take."""

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


def workers_of(master: DictConfig) -> int | None:
    """Return how many cells the launcher runs at once, or None where it does not say."""
    workers = OmegaConf.select(master, "hydra.launcher.workers")
    check_workers(workers)
    return workers
