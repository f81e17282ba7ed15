"""Weights & Biases, online or offline."""

import logging
import math

from lottalora.tracking import account
from lottalora.tracking.logger import About
from lottalora.tracking.logger import Logger

log = logging.getLogger(__name__)


class WeightsAndBiases(Logger):
    """One W&B run for one row: its id is the row's digest, so that a run taken up again continues there.

    Args:
        mode: online or offline. A server that does not answer makes it offline, which is said.
        project: at W&B.
        entity: user or team; None: your own.
    """

    def __init__(
        self, *, mode: str = "online", project: str = "lottalora", entity: str | None = None
    ) -> None:
        if mode not in ("online", "offline"):
            raise ValueError(f"logger.mode must be online or offline, got {mode!r}.")
        self.mode = mode
        self.project = project
        self.entity = entity

    def begin(self, about: About) -> None:
        import wandb

        mode = usable(self.mode)
        about.folder.mkdir(parents=True, exist_ok=True)
        self.run = open_run(about, mode=mode, project=self.project, entity=self.entity)
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
            "%s does not answer: W&B goes on offline; send it later with `wandb sync`",
            account.server(),
        )
        return "offline"
    return mode


def open_run(about: About, *, mode: str, project: str, entity: str | None):  # noqa: ANN201  wandb is imported late
    import wandb

    identity = about.identity
    try:
        return wandb.init(
            mode=mode,
            project=project,
            entity=entity,
            id=identity["digest"],
            resume="allow",
            name=name_of(identity),
            group=about.group,
            job_type=identity["mode"],
            tags=[identity["model"], identity["data"], identity["recipe"]],
            config=about.config | {"row": identity},
            dir=about.folder,
            # The address of a repository may hold a password, and output whatever libraries print.
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
    except (wandb.errors.Error, TimeoutError) as error:  # its text may repeat the key
        raise ConnectionError(
            f"W&B refused the run ({type(error).__name__} at {account.server()}): {account.LOG_IN}."
        ) from error


def name_of(identity: dict) -> str:
    """What W&B's table shows: as short as the row's name."""
    rank = "" if identity["rank"] is None else f"r{identity['rank']}"
    words = [
        identity["model"],
        identity["data"],
        identity["size"],
        identity["mode"],
        rank,
        identity["init"],
        f"s{identity['seed']}",
    ]
    return "_".join(str(word) for word in words if word)
