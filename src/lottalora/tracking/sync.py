"""Send finished rows and offline runs to W&B, each once. A row without a W&B run gets one made of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from lottalora.tracking import wandb_login as account

THERE = ("finished", "running")  # states of a run at W&B
HEAD = 7  # bytes at the beginning of W&B's file, before its first record
AT_ONCE = 200  # runs in one question to the server, or in one call of `wandb sync`


def check_server() -> None:
    """Raise, before anything is written, if there is no W&B key or no answer from the server."""
    if not account.has_key():
        raise ValueError(f"There is no W&B key for {account.server()} on this machine: type `wandb login`, "
                         "or --offline to write the runs and send them later.")  # fmt: skip
    if not account.reachable():
        raise ConnectionError(f"{account.server()} does not answer. Nothing was sent; call this again later.")


def stands(row: dict, results: Path) -> bool:
    """Return whether a W&B run written here ended with the figures of this row."""
    from lottalora.results.rows import run_folder
    from lottalora.tracking.logger import summary_of
    from lottalora.tracking.weights_and_biases import FINAL

    try:
        final = json.loads((run_folder(row, results) / FINAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return summary_of(row).items() <= final["summary"].items()


def at_server(digests: Sequence[str], project: str, entity: str | None) -> set[str]:
    """Those that a run of the project at W&B stands for already, unless it broke off there."""
    import wandb

    found = set()
    try:
        asking = wandb.Api(timeout=30)
        path = f"{entity or asking.default_entity}/{project}"
        for begin in range(0, len(digests), AT_ONCE):
            wanted = {"name": {"$in": list(digests[begin : begin + AT_ONCE])}}
            found |= {each.id for each in asking.runs(path, filters=wanted) if each.state in THERE}
    except (wandb.errors.Error, ValueError) as error:  # its text may repeat the key
        if "could not find" in str(error).lower():  # the project comes into being with its first run
            return set()
        raise ConnectionError(
            f"{account.server()} does not list its runs ({type(error).__name__}): type `wandb login`."
        ) from error
    return found


def write_run(row: dict, results: Path, *, project: str, entity: str | None) -> None:
    """Write an offline W&B run from a row: config, β and score of the best epoch, final figures."""
    from lottalora.results.atomic_write import unwritable
    from lottalora.results.rows import run_folder
    from lottalora.tracking.logger import About
    from lottalora.tracking.logger import summary_of
    from lottalora.tracking.weights_and_biases import WeightsAndBiases

    logger = WeightsAndBiases(mode="offline", project=project, entity=entity, machine=False)
    folder = run_folder(row, results)
    identity = {key: value for key, value in row.items() if key not in ("config", "account", "beta")}
    try:
        logger.begin(About(identity=identity, config=row["config"], folder=folder, group=None))
    except OSError as error:
        if error.errno is None:  # of W&B, which says it itself
            raise
        raise unwritable(error, folder / "wandb", "--results DIR") from error
    if row["best_epoch"] is not None and row["validation_score"] is not None:
        logger.epoch(row["best_epoch"], {"validation/score": row["validation_score"]}, row["beta"])
    logger.end(summary_of(row))


def unsent(results: Path) -> list[Path]:
    """Folders of offline runs that W&B has not marked as sent; the names, and so the order, are of time.

    Those of processes that were killed before W&B wrote anything are left out: it takes none of them.
    """
    found = sorted(results.glob("runs/*/wandb/offline-run-*"), key=lambda folder: folder.name)
    return [folder for folder in found if holds_records(folder) and not is_sent(folder)]


def holds_records(folder: Path) -> bool:
    """Return whether the offline run has more than the head of its file."""
    return any(file.stat().st_size > HEAD for file in folder.glob("*.wandb"))


def is_sent(folder: Path) -> bool:
    """Return whether W&B marked the offline run as sent."""
    return any(folder.glob("*.wandb.synced"))


def digest_of(folder: Path) -> str:
    """offline-run-DATE_TIME-DIGEST."""
    return folder.name.rpartition("-")[2]


def send(folders: Sequence[Path]) -> list[Path]:
    """Send with W&B's own command, which marks what has arrived; what is not marked is given back."""
    from lottalora.tracking.weights_and_biases import keep_files_in

    for batch in batches(folders):
        keep_files_in(batch[0].parent)
        command = [sys.executable, "-m", "wandb", "sync", *map(str, batch)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return [folder for folder in folders if not is_sent(folder)]


def batches(folders: Sequence[Path]) -> Iterator[list[Path]]:
    """Several folders of one run, which was stopped and went on, go one after the other, in their order."""
    of_run: dict[str, list[Path]] = {}
    for folder in folders:
        of_run.setdefault(digest_of(folder), []).append(folder)
    for layer in zip_longest(*of_run.values()):
        together = [folder for folder in layer if folder]
        for begin in range(0, len(together), AT_ONCE):
            yield together[begin : begin + AT_ONCE]
