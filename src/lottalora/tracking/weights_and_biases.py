"""Weights & Biases, online or offline."""

import json
import logging
import math
import os
from pathlib import Path

from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import without_non_finite
from lottalora.tracking import wandb_login as account
from lottalora.tracking.logger import About
from lottalora.tracking.logger import Logger
from lottalora.tracking.logger import require

FINAL = "wandb/final.json"  # in a run's folder: the final figures that a W&B run ended with
LONGEST_TAG = 64  # characters, at W&B
log = logging.getLogger(__name__)


class WeightsAndBiases(Logger):
    """One W&B run for one row: its id is the row's digest, so that a run taken up again continues there.

    Args:
        mode: online or offline. A server that does not answer makes it offline, which is said.
        project: at W&B.
        entity: user or team; None: your own.
        machine: whether figures of this machine belong to the run.
    """

    def __init__(
        self,
        *,
        mode: str = "online",
        project: str = "lottalora",
        entity: str | None = None,
        machine: bool = True,
    ) -> None:
        if mode not in ("online", "offline"):
            raise ValueError(
                f"logger.mode must be online or offline, got {mode!r}. It is WANDB_MODE's unless it is "
                "typed. For a run without W&B leave out logger=wandb."
            )
        require("wandb")
        self.mode = mode
        self.project = project
        self.entity = entity
        self.machine = machine

    def begin(self, about: About) -> None:
        mode = usable(self.mode)
        self.folder = about.folder
        keep_files_in(about.folder / "wandb")
        import wandb

        self.run = open_run(about, mode=mode, project=self.project, entity=self.entity, machine=self.machine)
        self.histogram = wandb.Histogram
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")
        log.info("W&B: %s", self.run.url if mode == "online" else f"offline, in {about.folder / 'wandb'}")

    def epoch(self, epoch: int, metrics: dict[str, float], beta: dict[str, float]) -> None:
        entry = {"epoch": epoch, **metrics, **{f"beta/{layer}": value for layer, value in beta.items()}}
        self.run.log(entry | self.histogram_of(beta))

    def end(self, summary: dict[str, float | None] | None) -> None:
        if summary:
            self.run.summary.update(summary)
        self.run.finish(exit_code=0 if summary else 1)
        if summary:
            final = {"project": self.project, "summary": without_non_finite(summary)}
            write_whole(self.folder / FINAL, json.dumps(final, indent=1) + "\n")

    def histogram_of(self, beta: dict[str, float]) -> dict:
        finite = [value for value in beta.values() if math.isfinite(value)]
        return {"beta": self.histogram(finite)} if finite else {}


def usable(mode: str) -> str:
    """The mode that is possible here. Without a key, online is refused before anything is trained."""
    if mode == "offline":
        return mode
    if not account.has_key():
        raise ValueError(f"logger=wandb is online but this machine has no W&B key: {account.LOG_IN}.")
    if not account.reachable():
        log.warning(
            "%s does not answer: W&B goes on offline; send it later with `python -m lottalora sync`",
            account.server(),
        )
        return "offline"
    return mode


def keep_files_in(folder: Path) -> None:
    """Logs of W&B's own processes go here too, not into the home folder, which jobs on a cluster share."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_CACHE_DIR", str((folder / "cache").resolve()))
    os.environ.setdefault("WANDB_DATA_DIR", str((folder / "data").resolve()))


def open_run(  # noqa: ANN201  wandb is imported late
    about: About, *, mode: str, project: str, entity: str | None, machine: bool
):
    """Open the W&B run of a row; raise a one-line error where W&B refuses it."""
    import wandb

    identity = about.identity
    try:
        return wandb.init(
            mode=mode,
            project=project,
            entity=entity,
            id=identity["digest"],
            resume="allow",
            name=display_name(identity),
            group=about.group,
            job_type=identity["mode"],
            tags=tags_of(identity),
            config=about.config | {"row": identity},
            dir=about.folder,
            # The address of a repository may hold a password, and output whatever libraries print.
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_stats=not machine,
                x_disable_meta=not machine,
            ),
        )
    except (wandb.errors.Error, TimeoutError) as error:  # its text may repeat the key
        raise ConnectionError(
            f"W&B refused the run ({type(error).__name__} at {account.server()}): {account.LOG_IN}."
        ) from error


def tags_of(identity: dict) -> list[str]:
    """Model, data and recipe, as far as W&B takes them: it refuses an empty tag and a longer one."""
    names = [identity[key] for key in ("model", "data", "recipe")]
    return [name[:LONGEST_TAG] for name in names if name]


def display_name(identity: dict) -> str:
    """Return the run's name in W&B's table, as short as the row's."""
    rank = "" if identity["rank"] is None else f"r{identity['rank']}"
    parts = [
        identity["model"],
        identity["data"],
        identity["size"],
        identity["mode"],
        rank,
        identity["init"],
        f"s{identity['seed']}",
    ]
    return "_".join(str(part) for part in parts if part)
