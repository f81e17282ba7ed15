"""What a sweep will take before it is started: runs, hours, memory, disk and energy. Runs nothing."""

import argparse
import gc
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from lottalora.cli.arguments import add_json
from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import overrides_of
from lottalora.cli.arguments import print_json
from lottalora.messages import counted

HELP = "runs, hours, memory, disk and energy of a sweep, before it is started"
OPEN, CLOSE = "<!-- sweeps -->", "<!-- /sweeps -->"
MARKED = re.compile(f"{OPEN}.*?{CLOSE}", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser, none="every file of sweeps/, a line each")
    add_json(parser)
    parser.add_argument("--docs", nargs="?", const=Path("."), type=Path, metavar="DIR",
                        help="instead, write that table into docs/evidence.md of a repository")  # fmt: skip


def run(asked: argparse.Namespace) -> int:
    """Print the plan; return 1 if a run of the sweep cannot be run."""
    if asked.docs is not None and asked.overrides:
        raise ValueError("--docs writes the table of all sweeps, so it takes no KEY=VALUE.")
    return of_one(asked) if asked.overrides else of_each(asked)


def of_one(asked: argparse.Namespace) -> int:
    """Print the plan of one sweep."""
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


def of_each(asked: argparse.Namespace) -> int:
    """Print or write a line for each file of sweeps/."""
    from lottalora.sweeps.plan import plan_of_each

    planned = plan_of_each(overrides_of(asked))
    if asked.docs is not None:
        print(f"{write_docs(asked.docs, planned)}: written")
    elif asked.json:
        print_json(list(planned))
    else:
        show_each(planned)
    return 0


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
            f"{counted(count, 'run')}: {source}" for source, count in planned["hours_from"].items()
        ),
        "memory": f"{planned['memory_mb']:,} MB, all that run at once",
        "disk": f"{planned['disk_mb']:,.1f} MB",
        "energy": f"{planned['energy_kwh']:.3f} kWh, assuming {planned['watts']:.0f} W for a busy {one}",
    }
    if unknown := planned["hours_from"].get("unknown"):
        lines |= {
            name: f"unknown for {counted(unknown, 'run')}" for name in ("time left", "work left", "energy")
        }
    for name, value in lines.items():
        table.add_row(name, value or "nothing is left")
    Console().print(table, markup=False)


def show_each(planned: Iterable[dict]) -> None:
    """Print a line for each sweep, as soon as it is known."""
    width = shutil.get_terminal_size((200, 24)).columns
    print(f"{'sweep':<25}{'runs':>6}{'done':>6}{'work left':>12}  what it runs")
    for each in planned:
        line = f"{each['name']:<25}{each['runs']:>6,}{each['done']:>6,}{work_left(each):>12}  {each['title']}"
        print(line if len(line) <= width else f"{line[: width - 1]}…", flush=True)


def write_docs(root: Path, planned: Iterable[dict]) -> Path:
    """Fill what stands between the markers of docs/evidence.md with a line for each sweep.

    Raises:
        FileNotFoundError: the page or its markers are not there.
    """
    from lottalora.results.atomic_write import write_whole

    page = root / "docs" / "evidence.md"
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if not MARKED.search(text):
        raise FileNotFoundError(f"No {page} with {OPEN} and {CLOSE}. Name the repository: plan --docs DIR.")
    lines = ["| `sweeps=` | runs | done | work left | what it runs |", "| :-- | --: | --: | --: | :-- |"]
    for each in planned:
        name, title, runs, done = (each[key] for key in ("name", "title", "runs", "done"))
        lines.append(f"| {name} | {runs:,} | {done:,} | {work_left(each)} | {title} |")
    table = "\n".join(lines)
    write_whole(page, MARKED.sub(lambda _: f"{OPEN}\n\n{table}\n\n{CLOSE}", text))
    return page


def work_left(planned: dict) -> str:
    """Time on one core or GPU; "–" where nothing is left."""
    from lottalora.tracking.bars import duration

    if planned["hours_from"].get("unknown"):
        return "unknown"
    return duration(3600 * planned["hours_of_work"]) if planned["hours_of_work"] else "–"
