"""Files that a run leaves beside its row where its config asks for them: its artifact, its weights."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from lottalora.artifacts.learned import check_same
from lottalora.results import rows
from lottalora.results.rows import Row

if TYPE_CHECKING:
    from omegaconf import DictConfig

ARTIFACTS, WEIGHTS = "artifacts", "weights"  # folders below the results
ENTRIES = {  # key of the config → key of the row, folder
    "artifact": ("artifact", ARTIFACTS),
    "keep_weights": ("weights", WEIGHTS),
}


def is_done(cfg: "DictConfig", digest: str) -> bool:
    """Whether the run is done and not forced; if so, log it.

    Raises:
        FileNotFoundError: its row exists, and a file that the config asks for does not. A sweep goes on, and
            counts such runs.
        ValueError: its row exists, from other learned weights.
    """
    from hydra.core.hydra_config import HydraConfig  # of the suite, which who checks an artifact may not have
    from hydra.types import RunMode

    results = Path(cfg.paths.results)
    path = None if cfg.force else rows.find(digest, results)
    if path is None:
        return False
    row = rows.read(path)
    check_same(row, cfg)
    lacking = missing(row, [key for key in ENTRIES if cfg[key]], results)
    if lacking and HydraConfig.get().mode != RunMode.MULTIRUN:
        raise FileNotFoundError(
            f"The row exists without its {' and its '.join(lacking)}: {path}. "
            "Type force=true to run it again."
        )
    return rows.is_done(digest, results)


def missing(row: Row, asked: Collection[str], results: Path) -> list[str]:
    """Which of the files that these keys of the config ask for are not there; a diverged run leaves none.

    Args:
        row: of the finished run.
        asked: keys of `ENTRIES`.
        results: the results folder.
    """
    if row["diverged"]:
        return []
    entries = [ENTRIES[key] for key in asked]
    return [entry for entry, folder in entries if not (results / folder / row.get(entry, "")).is_file()]
