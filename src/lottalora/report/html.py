"""One HTML page that needs nothing but itself: data, style, script and plotly are inside of it."""

import base64
import hashlib
import json
from collections import Counter
from importlib import resources
from pathlib import Path

from jinja2 import Environment
from jinja2 import PackageLoader
from jinja2 import StrictUndefined

from lottalora.analysis.statistics import interval
from lottalora.report import charts
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.files import naming_out
from lottalora.report.overview import cards_of
from lottalora.report.overview import verdict_of
from lottalora.report.run_list import run_list
from lottalora.report.tables import LEFT
from lottalora.report.tables import cells
from lottalora.report.tables import headings
from lottalora.report.tables import notes
from lottalora.report.tables import share
from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import without_non_finite


def write_page(blocks: list[Block], problems: list[str], results: Path, out: Path, command: str) -> Path:
    """Write report.html below `out` and give its path."""
    path = out / "report.html"
    text = page(blocks, problems, results, out, command)
    with naming_out(out):
        write_whole(path, text)
    return path


def page(blocks: list[Block], problems: list[str], results: Path, out: Path, command: str) -> str:
    listed = run_list(blocks, results, out)
    drawn = charts_of(blocks)
    cards = cards_of(blocks)
    script, plotly = own_file("page.js"), plotly_script()
    environment = Environment(
        loader=PackageLoader("lottalora.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        cards=cards,
        verdict=verdict_of(cards),
        sections=[section(block, f"rank-{place}", f"beta-{place}") for place, block in enumerate(blocks)],
        charts=drawn,
        runs=listed["runs"],
        filters={
            key: distinct(listed["runs"], key) for key in ("model", "data", "mode", "init", "rank", "recipe")
        },
        problems=[problem.replace(f"{results}/", "") for problem in problems],
        origin=origin(listed["runs"], command, blocks),
        payload=as_json({"charts": drawn} | listed),
        style=own_file("page.css"),
        script=script,
        plotly=plotly,
        hashes=[sha256(script), sha256(plotly)],
    )


def charts_of(blocks: list[Block]) -> dict[str, dict]:
    drawn = {"bars": charts.bars_chart(blocks), "cost": charts.cost_chart(blocks)}
    for place, block in enumerate(blocks):
        drawn[f"rank-{place}"] = charts.rank_chart(block)
        drawn[f"beta-{place}"] = charts.beta_chart(block)
    return {name: chart for name, chart in drawn.items() if chart}


def section(block: Block, rank_chart: str, beta_chart: str) -> dict:
    return {
        "block": block,
        "rank_chart": rank_chart,
        "beta_chart": beta_chart,
        "headings": headings(block.metric),
        "left": LEFT,
        "lines": [cells(line, block.metric) for line in block.lines],
        "notes": notes(block),
        "costs": [cost(line) for line in block.lines if line.own_rows],
    }


def cost(line: Line) -> list[str]:
    """Seconds and memory of the counted runs, beside what was trained. They were measured on shared machines,
    so that no line is comparable with another."""
    seconds = interval(run["seconds"] for run in line.runs)
    spread = "" if seconds.std != seconds.std else f" ± {seconds.std:,.0f}"
    memory = [run["peak_memory_mb"] for run in line.runs if run["peak_memory_mb"] is not None]
    return [
        f"{line.label}{', ' + line.init if line.init else ''}",
        "–" if line.rank is None else str(line.rank),
        f"{line.trainable:,}",
        share(line.percent_of_full),
        f"{seconds.mean:,.0f}{spread}",
        f"{max(memory):,.0f}" if memory else "–",
        ", ".join(sorted({run["device"] for run in line.runs})),
    ]


def origin(runs: list[dict], command: str, blocks: list[Block]) -> list[tuple[str, str]]:
    """How the page came about: what was typed, and what the rows say of the code that made them."""
    from lottalora.results.provenance import commit
    from lottalora.results.provenance import versions

    commits = Counter(run["commit"] or "outside of a repository" for run in runs)
    pairs = [
        (row["versions"], row["seconds"])
        for block in blocks
        for line in block.lines
        if line.own_rows
        for row in line.runs + line.older
    ]
    known = sorted({f"{name} {version}" for found, _ in pairs for name, version in found.items()})
    finished = sorted(run["finished"] for run in runs)
    here = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        ("Command", command),
        ("Commit of the report", commit() or "outside of a repository"),
        ("Versions, report", here),
        ("Commits of the rows", "; ".join(f"{name} ({count})" for name, count in commits.most_common(8))),
        ("Versions, rows", ", ".join(known)),
        ("Rows finished", f"{finished[0]} to {finished[-1]}"),
        ("Training time", f"{sum(seconds for _, seconds in pairs) / 3600:,.2f} hours in all runs together"),
    ]


def distinct(runs: list[dict], key: str) -> list[str]:
    values = {run[key] for run in runs} - {None, ""}
    return [str(value) for value in sorted(values)]


def as_json(value: dict) -> str:
    """JSON that may stand in a script element: no < of a row can end it."""
    text = json.dumps(without_non_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def plotly_script() -> str:
    """The library as plotly.py ships it."""
    text = resources.files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    if "</script" in text:
        raise ValueError(
            "This plotly.min.js cannot stand inside of a page: it contains </script. Use the pinned one."
        )
    return text.replace("\r\n", "\n")


def own_file(name: str) -> str:
    return resources.files("lottalora.report").joinpath("page", name).read_text(encoding="utf-8")


def sha256(script: str) -> str:
    """For the page's content security policy: these two scripts run, and nothing else."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
