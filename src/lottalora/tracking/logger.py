"""The interface of loggers, and how a run uses one."""

import contextlib
import importlib.util
import logging
from abc import ABC
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class About:
    """What a logger is told of a run before it begins.

    Args:
        identity: the part of the row that is known by then: digest, model, data, mode and so on.
        config: resolved and plain.
        folder: of the run; a logger writes nowhere else.
        group: name of the sweep, or None.
    """

    identity: dict
    config: dict
    folder: Path
    group: str | None


class Logger(ABC):
    """One run's logger."""

    @abstractmethod
    def begin(self, about: About) -> None:
        """Open what is written to; before any training, a ValueError or OSError says why that cannot be."""

    @abstractmethod
    def epoch(self, epoch: int, metrics: dict[str, float], beta: dict[str, float]) -> None:
        """The figures of one epoch, counted from 0, such as validation/score; and β of each layer."""

    @abstractmethod
    def end(self, summary: dict[str, float | None] | None) -> None:
        """The final figures, or None if the run failed. Everything is written when this returns."""


def require(package: str) -> None:
    """Refuse a logger whose package is not installed, when it is made and so before any data are read."""
    try:
        found = importlib.util.find_spec(package)
    except ValueError:  # what stands in sys.modules is no module
        found = None
    if found is None:
        raise ValueError(f"logger={package} needs the package {package}. Type: pip install {package}")


class Watch:
    """A logger whose first error stops logging with a warning; the run continues."""

    def __init__(self, logger: Logger) -> None:
        self.logger: Logger | None = logger
        self.tested: dict[str, float] = {}  # figures of the test at the best epoch
        self.row: dict | None = None

    def epoch(self, epoch: int, metrics: dict[str, float], beta: dict[str, float]) -> None:
        self.attempt("epoch", epoch, metrics, beta)

    def end(self) -> None:
        self.attempt("end", None if self.row is None else summary_of(self.row) | self.tested)

    def attempt(self, step: str, *arguments: object) -> None:
        if self.logger is None:
            return
        try:
            getattr(self.logger, step)(*arguments)
        except Exception as error:  # of somebody else's code: whatever it is, it must not cost the run
            log.warning(
                "the logger has stopped (%s: %s); the run goes on without it", type(error).__name__, error
            )
            self.logger = None


@contextlib.contextmanager
def watched(logger: Logger | None, about: About) -> Iterator[Watch | None]:
    """Begin, hand out, and in any case end the logger; None stays None. Set `row` when it is written."""
    if logger is None:
        yield None
        return
    logger.begin(about)
    watch = Watch(logger)
    try:
        yield watch
    finally:
        watch.end()


def summary_of(row: dict) -> dict[str, float | None]:
    """The final figures of a row, under the names that loggers show them by."""
    return {
        "test/score": row["score"],
        **{f"test/{name}": score for name, score in (row["arms"] | row["further"]).items()},
        "best/validation/score": row["validation_score"],
        "best/epoch": row["best_epoch"],
        "seconds": row["seconds"],
        "peak_memory_mb": row["peak_memory_mb"],
        **{f"parameters/{name}": count for name, count in row["counts"].items()},
        **({"diverged": True} if row["diverged"] else {}),
    }
