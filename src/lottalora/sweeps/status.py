"""Where a sweep stands: done, running, failed with the cause, waiting; what diverged; the time left."""

from pathlib import Path

from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import cell_name
from lottalora.sweeps.plan import costs
from lottalora.sweeps.progress import key_of
from lottalora.sweeps.progress import sweep_of
from lottalora.sweeps.progress import sweep_state


def of_sweep(overrides: list[str]) -> dict:
    """Status of the cells of one command line."""

    with sweep_of(overrides) as (cells, composer, master):
        now = sweep_state(cells, Path(master.paths.results))
        return {
            "sweep": overrides,
            "runs": len(cells),
            "done": len(now.done),
            "unreadable": [],
            "diverged": [rows.run_name(cell.identity) for cell in now.diverged],
            "running": [
                {"run": rows.run_name(cell.identity), **now.claims[cell.digest]} for cell in now.running
            ],
            "failed": [failure(cell_name(cell), now.causes[key_of(cell)]) for cell in now.failed],
            "waiting": len(now.waiting),
            "cannot_run": sum(bool(cell.problem) for cell in cells),
            "hours": costs(now.unfinished, composer, master)["hours"],
        }


def failure(run: str, record: dict) -> dict:
    """Return what `status` shows of a failed run."""
    return {"run": run, "cause": record["cause"], "log": record["log"]}


def of_folder(results: Path) -> dict:
    """Return the status of a results folder; only a sweep knows what is still waiting."""

    held, (done, damaged) = claims.all_held(results), rows.read_done(results)
    records = {
        digest: record
        for digest, record in failures.read_all(results).items()
        if digest not in held.keys() | done.keys()
    }
    return {
        "sweep": [],
        "runs": len(done.keys() | held.keys() | records.keys()),
        "done": len(done.keys() - held.keys()),
        "unreadable": [*rows.foreign_files(results), *damaged.values()],
        "diverged": [
            rows.run_name(row) for digest, row in done.items() if digest not in held and row["diverged"]
        ],
        "running": [{"run": digest, **note} for digest, note in held.items()],
        "failed": [
            failure(" ".join(record["overrides"]) or digest, record) for digest, record in records.items()
        ],
        "waiting": None,
        "cannot_run": None,
        "hours": None,
    }
