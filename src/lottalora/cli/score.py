"""Load an artifact and score it on the test part of its run, as whoever receives the file would."""

import argparse
from pathlib import Path

HELP = "load an artifact and score it on the test part of its run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", type=Path, metavar="MODEL.safetensors", help="from artifact=true")
    about = {
        "--results": ("DIR", Path, "folder with the row of its run (default: the one that holds artifacts/)"),
        "--data": ("DIR", Path, "where the data lie, as data.root of the run"),
        "--stride": ("N", int, "of a text: bits per byte, with a window that moves by N tokens"),
    }
    for name, (metavar, kind, text) in about.items():
        parser.add_argument(name, type=kind, metavar=metavar, help=text)


def run(asked: argparse.Namespace) -> int:
    """Print the score; of a text the bits per byte too."""
    if not asked.path.is_file():
        raise FileNotFoundError(
            f"There is no artifact at {asked.path}: name a file that a run with artifact=true has left."
        )
    from lottalora.artifacts.runs import register_models
    from lottalora.artifacts.weights import Kept
    from lottalora.artifacts.weights import places_of
    from lottalora.report.analyses.kept_runs import score_again
    from lottalora.scaffold import load
    from lottalora.scaffold import read

    read(asked.path)  # a file that is no artifact is refused before its row is looked for
    results = asked.results or asked.path.resolve().parent.parent
    row = row_of(asked.path, results)
    if asked.stride is not None and row["model"] != "gpt":
        raise ValueError(f"--stride is for texts, and this artifact is {row['model']}. Leave it out.")
    if asked.data and "root" not in places_of(row):
        raise ValueError(f"data={row['data']} reads no files; leave --data out.")
    register_models()
    net = load(asked.path)
    kept = Kept(results, {"root": str(asked.data)} if asked.data else {})
    if asked.stride is None:
        print(f"test {row['metric']}: {score_again(net, kept, row):.6f}")
        return 0
    from lottalora.data.batches.tokens import BLOCK
    from lottalora.tasks.sliding_window import bits_per_byte

    part = kept.data(row)[1].test
    settings = {"text_bytes": part.text_bytes, "window": BLOCK, "stride": asked.stride}
    found = bits_per_byte(net, part.tokens, **settings)
    print(f"bits per byte of the test part, window {BLOCK}, stride {asked.stride}: {found:.6f}")
    return 0


def row_of(path: Path, results: Path) -> dict:
    """The row whose run left the artifact.

    Raises:
        ValueError: there is none.
    """
    from lottalora.results.rows import read_all

    for row in read_all(results)[0]:
        if row.get("artifact") == path.name:
            return row
    raise ValueError(f"No row below {results} names {path.name}. Name its folder with --results DIR.")
