"""Where a sweep stands: done, running, failed with the cause, waiting; what diverged; the time left."""

import argparse
from pathlib import Path

from lottalora.sweeps.words import add_json
from lottalora.sweeps.words import add_words
from lottalora.sweeps.words import print_json
from lottalora.sweeps.words import words_of

HELP = "done, running, failed and waiting runs of a sweep, with the time left"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_words(parser, none="all of the results folder")
    add_json(parser)


def run(asked: argparse.Namespace) -> int:
    found = of_sweep(words_of(asked)) if asked.words else of_folder(asked.results or Path("results"))
    if asked.json:
        print_json(found)
    else:
        show(found)
    return 0


def of_sweep(words: list[str]) -> dict:
    """Status of the cells of one command line."""
    from lottalora.rows import run_name
    from lottalora.sweeps.plan import costs
    from lottalora.sweeps.progress import key_of
    from lottalora.sweeps.progress import standing
    from lottalora.sweeps.progress import sweep_of

    with sweep_of(words) as (cells, composer, master):
        now = standing(cells, Path(master.paths.results))
        return {
            "sweep": words,
            "runs": len(cells),
            "done": len(now.done),
            "diverged": [run_name(cell.identity) for cell in now.diverged],
            "running": [{"run": run_name(cell.identity), **now.claims[cell.digest]} for cell in now.running],
            "failed": [failure(name(cell), now.causes[key_of(cell)]) for cell in now.failed],
            "waiting": len(now.waiting),
            "hours": costs(now.unfinished, composer, master)["hours"],
        }


def name(cell) -> str:  # noqa: ANN001
    from lottalora.rows import run_name

    return run_name(cell.identity) if cell.identity else " ".join(cell.overrides)


def failure(run: str, record: dict) -> dict:
    return {"run": run, "cause": record["cause"], "log": record["log"]}


def of_folder(results: Path) -> dict:
    """Status of all that a results folder knows of; what waits is known to sweeps only."""
    from lottalora.sweeps import claims
    from lottalora.sweeps import failures
    from lottalora.sweeps.sweep import diverged
    from lottalora.sweeps.sweep import row_paths

    held, done = claims.all_held(results), row_paths(results)
    records = {
        digest: record
        for digest, record in failures.read_all(results).items()
        if digest not in held.keys() | done.keys()
    }
    return {
        "sweep": [],
        "runs": len(done.keys() | held.keys() | records.keys()),
        "done": len(done.keys() - held.keys()),
        "diverged": [path.stem for digest, path in done.items() if digest not in held and diverged(path)],
        "running": [{"run": digest, **note} for digest, note in held.items()],
        "failed": [
            failure(" ".join(record["overrides"]) or digest, record) for digest, record in records.items()
        ],
        "waiting": None,
        "hours": None,
    }


def show(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    from lottalora.sweeps.plan import in_words

    console = Console()
    table = Table(title=" ".join(found["sweep"]) or None, title_justify="left", show_header=False)
    table.add_row("runs", f"{found['runs']:,}")
    table.add_row("done", f"{found['done']:,}")
    table.add_row("of these diverged", f"{len(found['diverged']):,}")
    table.add_row("running", f"{len(found['running']):,}")
    table.add_row("failed", f"{len(found['failed']):,}")
    if found["sweep"]:
        table.add_row("waiting", f"{found['waiting']:,}")
        table.add_row("time left", in_words(found["hours"]))
    console.print(table, markup=False)
    for each in found["running"]:
        where = (
            f"process {each['pid']} on {each['host']} since {each['start']}"
            if each.get("host")
            else "another process"
        )
        console.print(f"running: {each['run']}, {where}", markup=False, soft_wrap=True, highlight=False)
    for each in found["diverged"]:
        console.print(f"diverged: {each}", markup=False, soft_wrap=True, highlight=False)
    for each in found["failed"]:
        log = f" (log: {each['log']})" if each["log"] else ""
        console.print(
            f"failed: {each['run']}: {each['cause']}{log}", markup=False, soft_wrap=True, highlight=False
        )
