"""All runs as the page's table has them: plain data, small enough for thousands of rows."""

import json
import math
import os
from collections.abc import Collection
from itertools import chain
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
OF_A_LINE = ("model", "size", "mode", "init", "rank", "alpha", "recipe", "metric")
OF_A_ROW = ("seed", "digest")
MINUTE = len("2026-01-02T03:04")
DIGITS = 8  # of a score, which is a float32 number mostly


def run_list(blocks: list[Block], results: Path, out: Path, lost: Collection[str] = ()) -> dict:
    """All runs, with what many share told once, so that thousands of them stay small.

    {"runs": one dict for each row, "lines": what its line shares, its file's name as what stands before and
    after the seed, "pool": options, "configs": places in the pool (see `as_changes`), "made": device and
    commit, "base": address of the results}.
    """
    pool: dict[str, int] = {}
    configs: dict[tuple[int, ...], int] = {}
    known: dict[str, int] = {}  # config as JSON, seeds aside → its place in `configs`
    made: dict[str, int] = {}
    base = quote(os.path.relpath(results, out).replace(os.sep, "/"))
    lines, runs = [], []
    for block in blocks:
        for line in block.lines:
            for counted, row in marked(line) if line.own_rows else []:
                if (same := json.dumps(without_seeds(row["config"]))) not in known:
                    named = tuple(pool.setdefault(option, len(pool)) for option in options(row))
                    known[same] = configs.setdefault(named, len(configs))
                shared = line_entry(block, row, results) | {"config": known[same]}
                if not lines or lines[-1] != shared:
                    lines.append(shared)
                where = {"device": row["device"], "commit": row["commit"],
                         "state": commit_state(row["commit"], lost)}  # fmt: skip
                at = made.setdefault(json.dumps(where), len(made))
                runs.append({"line": len(lines) - 1, "made": at} | entry(block, row, counted, results))
    return {
        "runs": runs,
        "lines": lines,
        "pool": list(pool),
        "configs": as_changes(list(configs)),
        "made": [json.loads(each) for each in made],
        "base": base,
    }


def as_table(entries: list[dict]) -> dict:
    """Dicts with their keys, and values that many share, told once.

    {"keys": names, "values": for each key a list of its values, or None where its column holds them itself,
    "rows": of each dict the values, or their places in that list; None for one that it lacks}.
    """
    keys = list(dict.fromkeys(key for each in entries for key in each))
    columns = [with_places([each.get(key) for each in entries]) for key in keys]
    rows = [list(row) for row in zip(*(column for _, column in columns), strict=True)]
    return {"keys": keys, "values": [values for values, _ in columns], "rows": rows}


def with_places(column: list) -> tuple[list | None, list]:
    """The values of a column, each once, and their places; None and the column where that is no shorter."""
    texts = list(map(json.dumps, column))
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    told = [places[text] for text in texts]
    if len("".join(texts)) <= len("".join(places)) + len("".join(map(str, told))):
        return None, column
    return [json.loads(text) for text in places], told


def as_changes(configs: list[tuple[int, ...]]) -> list[list[int] | dict]:
    """{"whole": places}, or [number of an earlier list much like it, index, place, index, place, …]."""
    told: list[list[int] | dict] = []
    whole: dict[int, list[int]] = {}  # numbers of the lists that are told as a whole, by length
    for number, config in enumerate(configs):
        earlier = whole.setdefault(len(config), [])
        changed = [(differing(config, configs[of]), of) for of in earlier]
        at, of = min(changed, key=lambda change: len(change[0]), default=({}, None))
        if of is not None and len(at) < len(config) / 4:
            told.append([of, *chain.from_iterable(at.items())])
        else:
            earlier.append(number)
            told.append({"whole": list(config)})
    return told


def differing(config: tuple[int, ...], other: tuple[int, ...]) -> dict[int, int]:
    """Index → place, where two lists of one length differ."""
    return {index: mine for index, (mine, its) in enumerate(zip(config, other, strict=True)) if mine != its}


def marked(line: Line) -> list[tuple[bool, Row]]:
    """Return the line's rows: True for those that count, False for older ones."""
    return [(True, row) for row in line.runs] + [(False, row) for row in line.older]


def line_entry(block: Block, row: Row, results: Path) -> dict:
    """What the runs of one line share; what says nothing is left out."""
    metric, path = block.metric, rows.path_of(row, results)
    before, _, after = path.stem.removesuffix(f"-{row['digest']}").rpartition(f"s{row['seed']}")
    made = {key: row[key] for key in OF_A_LINE} | {
        "data": row["data"] + (f" ({block.stand_in.removeprefix('built-in ')})" if block.stand_in else ""),
        "share": round(100 * row["counts"]["trainable"] / row["counts"]["full"], 5),
        "trainable": row["counts"]["trainable"],
        "options": row_options(row),
        "shown": [metric.scale, metric.decimals, f" {metric.unit}" if metric.unit else ""],
        "folder": quote(path.parent.relative_to(results).as_posix()),
        "file": [quote(before), quote(after)],
    }
    return {key: value for key, value in made.items() if value not in (None, "")}


def entry(block: Block, row: Row, counted: bool, results: Path) -> dict:
    """What a run has for itself; what says nothing is left out."""
    path = rows.path_of(row, results)
    made = {key: row[key] for key in OF_A_ROW} | {
        "finished": f"{row['finished'][:MINUTE]}Z",
        "score": shortened(row["score"]),
        "seconds": round(row["seconds"], 1),
        "removed": shortened(removed_score(row)),
        "recovery": recovery_of(block, row),
        "older": not counted,
        "log": log_of(path.relative_to(results), results),
    }
    return {key: value for key, value in made.items() if value not in (None, "", False)}


def shortened(score: float | None) -> float | None:
    """The score to DIGITS significant digits, for thousands of them stand on one page."""
    return None if score is None else float(f"{score:.{DIGITS}g}")


def recovery_of(block: Block, row: Row) -> float | None:
    """Return the run's recovery in percent, or None."""
    if block.baseline is None or row["score"] is None:
        return None
    share = recovery(row["score"], block.baseline.scores.mean, row["higher_is_better"])
    return None if math.isnan(share) else round(100 * share, 3)


def without_seeds(config: dict) -> dict:
    """A config as it would be under any seed."""
    scaffold = config.get("scaffold")
    without = {"seed": None, "backbone_seed": None, "scaffold": scaffold and scaffold | {"seed": None}}
    return config | without


def options(row: Row) -> list[str]:
    """Return all settings of a run as KEY=VALUE."""
    return [
        f"{key}={json.dumps(value, ensure_ascii=False)}"
        for key, value in flatten(row["config"]).items()
        if not key.startswith(PRIVATE) and key not in OF_A_RUN
    ]


def log_of(path: Path, results: Path) -> str:
    """The folder of the run where that exists, relative to the results; else ""."""
    folder = Path("runs", "-".join([*path.parts[1:-1], path.stem]))
    return quote(folder.as_posix()) if (results / folder).is_dir() else ""
