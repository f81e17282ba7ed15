"""All runs as the page's table has them: plain data, small enough for thousands of rows."""

import json
import math
import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import quote

from lottalora.analysis.recovery import recovery
from lottalora.messages import flatten
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.grouping import removed_score
from lottalora.report.grouping import row_options
from lottalora.results import rows
from lottalora.results.ancestry import commit_state
from lottalora.results.rows import Row

# Folders of the machine that trained: nothing for a page that travels. Seeds have a column.
PRIVATE = ("paths.", "data.root")
OF_A_RUN = ("seed", "backbone_seed", "scaffold.seed")
SAME = (
    "model", "size", "mode", "init", "rank", "alpha", "seed", "recipe", "metric", "score", "device",
    "seconds", "digest", "commit", "finished",
)  # fmt: skip


def run_list(blocks: list[Block], results: Path, out: Path, lost: Collection[str] = ()) -> dict:
    """{"runs": one dict for each row, "pool": options, "configs": lists of places in the pool}.

    Runs that differ in their seeds alone share a config, so that thousands of rows stay small.
    """
    pool: dict[str, int] = {}
    configs: dict[tuple[int, ...], int] = {}
    base = quote(os.path.relpath(results, out).replace(os.sep, "/"))
    runs = []
    for block in blocks:
        for line in block.lines:
            for counted, row in marked(line) if line.own_rows else []:
                named = tuple(pool.setdefault(option, len(pool)) for option in options(row))
                config = configs.setdefault(named, len(configs))
                runs.append(entry(block, row, counted, lost) | {"config": config} | links(row, results))
    return {"runs": runs, "pool": list(pool), "configs": list(configs), "base": base}


def marked(line: Line) -> list[tuple[bool, Row]]:
    return [(True, row) for row in line.runs] + [(False, row) for row in line.older]


def entry(block: Block, row: Row, counted: bool, lost: Collection[str]) -> dict:
    """Keys are what the table's headings call in `data-key`; what says nothing is left out."""
    score, removed = row["score"], removed_score(row)
    unit = f" {block.metric.unit}" if block.metric.unit else ""
    made = {key: row[key] for key in SAME} | {
        "data": row["data"] + (f" ({block.stand_in.removeprefix('built-in ')})" if block.stand_in else ""),
        "score_text": "diverged" if row["diverged"] else block.metric.text(score) + unit,
        "removed": removed,
        "removed_text": None if removed is None else block.metric.text(removed),
        "recovery": recovery_of(block, row),
        "share": round(100 * row["counts"]["trainable"] / row["counts"]["full"], 5),
        "trainable": row["counts"]["trainable"],
        "options": row_options(row),
        "state": commit_state(row["commit"], lost),
        "older": not counted,
    }
    return {key: value for key, value in made.items() if value not in (None, "", False)}


def recovery_of(block: Block, row: Row) -> float | None:
    if block.baseline is None or row["score"] is None:
        return None
    share = recovery(row["score"], block.baseline.scores.mean, row["higher_is_better"])
    return None if math.isnan(share) else round(100 * share, 3)


def options(row: Row) -> list[str]:
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in flatten(row["config"]).items()
        if not key.startswith(PRIVATE) and key not in OF_A_RUN
    ]


def links(row: Row, results: Path) -> dict:
    """The row's file, and the folder of its run where that exists, relative to the results."""
    path = rows.path_of(row, results).relative_to(results)
    found = {"row": quote(path.as_posix())}
    folder = Path("runs", "-".join([*path.parts[1:-1], path.stem]))
    if (results / folder).is_dir():
        found["log"] = quote(folder.as_posix())
    return found
