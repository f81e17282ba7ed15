"""One HTML page that needs nothing but itself: pictures, style, script and all runs are inside of it."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from jinja2 import Environment
from jinja2 import PackageLoader
from jinja2 import StrictUndefined
from jinja2 import Template
from markupsafe import Markup

from lottalora.report.blocks import Block
from lottalora.report.files import naming_out
from lottalora.report.names import block_names
from lottalora.report.page.control_sections import control_said
from lottalora.report.page.run_list import as_table
from lottalora.report.page.run_list import run_list
from lottalora.report.page.section import Shown
from lottalora.report.page.sections import sections_of
from lottalora.report.page.svg import panels_svg
from lottalora.report.page.svg import with_shared_styles
from lottalora.report.page.svg import with_short_ids
from lottalora.report.page.svg import with_short_series
from lottalora.report.pictures.headline import bests
from lottalora.report.pictures.headline import headline_picture
from lottalora.report.pictures.headline import verdict_of
from lottalora.report.pictures.palette import VARIABLES
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Picture
from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import without_non_finite

# Marks of the legend as paths in a square of 16.
SHAPES = {
    "o": "M3 8a5 5 0 1 0 10 0a5 5 0 1 0-10 0", "s": "M3.5 3.5h9v9h-9z", "^": "M8 3L13.5 13h-11z",
    "v": "M8 13L13.5 3h-11z", "<": "M3 8L13 2.5v11z", ">": "M13 8L3 2.5v11z", "D": "M8 2L14 8L8 14L2 8z",
    "d": "M8 2L12 8L8 14L4 8z",
    "h": "M8 2L13.2 5V11L8 14L2.8 11V5z",
    "p": "M8 2L14 6.5L11.7 13.5H4.3L2 6.5z", "P": "M6.5 3h3v3.5H13v3H9.5V13h-3V9.5H3v-3h3.5z",
    "X": "M4.5 2.5L8 6L11.5 2.5L13.5 4.5L10 8L13.5 11.5L11.5 13.5L8 10L4.5 13.5L2.5 11.5L6 8L2.5 4.5z",
    "_": "M1 8h14", "line": "M1 8h14", "dashes": "M1 8h4M6 8h4M11 8h4", "band": "M1 4h14v8H1z",
}  # fmt: skip
FILTERS = ("model", "data", "mode", "init", "rank", "recipe", "state")


def write_page(
    blocks: list[Block],
    problems: list[str],
    results: Path,
    out: Path,
    command: str,
    lost: Collection[str] = (),
) -> Path:
    """Write report.html below `out` and give its path; `lost`: commits that no history here has."""
    path = out / "report.html"
    text = page(blocks, problems, results, out, command, lost)
    with naming_out(out):
        write_whole(path, text)
    return path


def page(
    blocks: list[Block],
    problems: list[str],
    results: Path,
    out: Path,
    command: str,
    lost: Collection[str] = (),
) -> str:
    """Return report.html as text."""
    listed = run_list(blocks, results, out, lost)
    runs = [listed["lines"][run["line"]] | listed["made"][run["made"]] | run for run in listed["runs"]]
    found = bests(blocks)
    script = own_file("page.js")
    drawing = Drawing()
    text = template(drawing).render(
        bests=found,
        verdict=verdict_of(found),
        control=control_said(blocks),
        headline=headline_picture(blocks),
        sections=sections_of(Shown(blocks, block_names(blocks), results)),
        begun=len({best.benchmark.name for best in found if best.begun}),
        reproduced=len({best.benchmark.name for best in found if best.counts}),
        runs=runs,
        filters={key: distinct(runs, key) for key in FILTERS},
        problems=[problem.replace(f"{results}/", "") for problem in problems],
        origin=origin(runs, command, blocks),
        payload=as_json(listed | {name: as_table(listed[name]) for name in ("runs", "lines")}),
        style=own_file("page.css") + drawing.RULES,
        script=script,
        hashes=[sha256(script)],
    )
    return drawing.fill(text)


class Drawing:
    """The panels of a page: their places are kept while it is written, and all are drawn together."""

    RULES = "\0rules\0"  # where the styles that panels share are to stand

    def __init__(self) -> None:
        self.panels: list[tuple[Panel, str]] = []

    def places(self, picture: Picture, narrow: bool = False) -> list[Markup]:
        """A place for each panel of a picture."""
        first = len(self.panels)
        shown = picture.narrow if narrow else picture.panels
        self.panels += [(each, f"{picture.title}. {each.title}".strip()) for each in shown]
        return [Markup(f"\0{place}\0") for place in range(first, len(self.panels))]

    def fill(self, text: str) -> str:
        """The text with the panels as SVG in their places."""
        drawn, rules = with_shared_styles(with_short_ids(panels_svg(self.panels)))
        whole = re.sub("\0([0-9]+)\0", lambda place: drawn[int(place[1])], text.replace(self.RULES, rules))
        return with_short_series(whole)


def template(drawing: Drawing) -> Template:
    """Return the page's template, in which an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader("lottalora.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "panels": drawing.places, "code": with_code, "variable": lambda colour: VARIABLES[colour],
    }  # fmt: skip
    environment.globals["shapes"] = SHAPES
    return environment.get_template("page.html")


def with_code(text: str) -> Markup:
    """The text with what stands between backticks as code, and `r = 8` on one line."""
    parts = re.sub(r"\b([rn]) = (?=\d)", "\\1\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def origin(runs: list[dict], command: str, blocks: list[Block]) -> list[tuple[str, str]]:
    """How the page came about: what was typed, and what the rows say of the code that made them."""
    from lottalora.results.provenance import commit
    from lottalora.results.provenance import versions

    commits = Counter(run.get("commit") or "outside of a repository" for run in runs)
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
    """Return the distinct values of a key, sorted, for the page's filters."""
    values = {run.get(key) for run in runs} - {None, ""}
    return [str(value) for value in sorted(values)]


def as_json(value: dict) -> str:
    """JSON that may stand in a script element: no < of a row can end it."""
    text = json.dumps(without_non_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def own_file(name: str) -> str:
    """Read a file of the page: its style or its script."""
    return resources.files("lottalora.report").joinpath("page", name).read_text(encoding="utf-8")


def sha256(script: str) -> str:
    """For the page's content security policy: this script runs, and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
