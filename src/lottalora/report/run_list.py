"""All runs as the page's table has them: plain data, small enough for thousands of rows."""

import json
import math
import os
from pathlib import Path
from urllib.parse import quote

from lottalora.messages import flatten
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.results import rows
from lottalora.results.rows import Row

# Folders of the machine that trained: nothing for a page that travels.
PRIVATE = ("paths.", "data.root")


def run_list(blocks: list[Block], results: Path, out: Path) -> dict:
    """{"runs": one dict for each row, "pool": the options they point into}."""
    pool: dict[str, int] = {}
    base = quote(os.path.relpath(results, out).replace(os.sep, "/"))
    runs = [
        entry(block, row, counted, pool, results, base)
        for block in blocks
        for line in block.lines
        if line.own_rows
        for counted, row in marked(line)
    ]
    return {"runs": runs, "pool": list(pool)}


def marked(line: Line) -> list[tuple[bool, Row]]:
    return [(True, row) for row in line.runs] + [(False, row) for row in line.older]


def entry(block: Block, row: Row, counted: bool, pool: dict[str, int], results: Path, base: str) -> dict:
    """Keys are what the table's headings call in `data-key`."""
    score = math.nan if row["score"] is None else row["score"]
    unit = f" {block.metric.unit}" if block.metric.unit else ""
    same = (
        "model",
        "size",
        "data",
        "mode",
        "init",
        "rank",
        "seed",
        "device",
        "seconds",
        "digest",
        "commit",
        "finished",
    )
    return {key: row[key] for key in same} | {
        "data": row["data"] + (f" ({block.stand_in.removeprefix('built-in ')})" if block.stand_in else ""),
        "recipe": row["recipe"],
        "metric": row["metric"],
        "score": row["score"],
        "score_text": "diverged" if row["diverged"] else block.metric.text(score) + unit,
        "recovery": recovery_of(block, row),
        "trainable": row["counts"]["trainable"],
        "share": 100 * row["counts"]["trainable"] / row["counts"]["full"],
        "counted": counted,
        "options": [pool.setdefault(option, len(pool)) for option in options(row)],
        "links": links(row, results, base),
    }


def recovery_of(block: Block, row: Row) -> float | None:
    from lottalora.analysis.recovery import recovery

    if block.baseline is None or row["score"] is None:
        return None
    share = recovery(row["score"], block.baseline.scores.mean, row["higher_is_better"])
    return None if math.isnan(share) else 100 * share


def options(row: Row) -> list[str]:
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in flatten(row["config"]).items()
        if not key.startswith(PRIVATE)
    ]


def links(row: Row, results: Path, base: str) -> dict:
    """The row's file, and the folder of its run where that exists, relative to the page."""
    path = rows.path_of(row, results).relative_to(results)
    found = {"row": f"{base}/{quote(path.as_posix())}"}
    folder = Path("runs", "-".join([*path.parts[1:-1], path.stem]))
    if (results / folder).is_dir():
        found["log"] = f"{base}/{quote(folder.as_posix())}/"
    return found
