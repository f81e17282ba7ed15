"""TensorBoard and CSV files, written by Lightning's loggers."""

import math

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers import TensorBoardLogger

from lottalora.messages import flatten
from lottalora.tracking.logger import About
from lottalora.tracking.logger import Logger
from lottalora.tracking.logger import require


class TensorBoard(Logger):
    """Scalars and a histogram of β for each epoch, in FOLDER/tensorboard."""

    def __init__(self) -> None:
        require("tensorboard")

    def begin(self, about: About) -> None:
        self.logger = TensorBoardLogger(about.folder, name="", version="tensorboard")
        self.logger.log_hyperparams(flatten(about.config))

    def epoch(self, epoch: int, metrics: dict[str, float], beta: dict[str, float]) -> None:
        import numpy as np

        self.logger.log_metrics(metrics | by_layer(beta), step=epoch)
        finite = [value for value in beta.values() if math.isfinite(value)]
        if finite:
            self.logger.experiment.add_histogram("beta", np.array(finite), epoch)

    def end(self, summary: dict[str, float | None] | None) -> None:
        if summary:
            self.logger.log_metrics(known(summary), step=0)
        self.logger.finalize("success" if summary else "failed")


class Csv(Logger):
    """metrics.csv and hparams.yaml in FOLDER/csv/version_N."""

    def begin(self, about: About) -> None:
        self.logger = CSVLogger(about.folder, name="csv", flush_logs_every_n_steps=1)
        self.logger.log_hyperparams(flatten(about.config))
        self.last = 0

    def epoch(self, epoch: int, metrics: dict[str, float], beta: dict[str, float]) -> None:
        self.last = epoch
        self.logger.log_metrics(metrics | by_layer(beta), step=epoch)
        self.logger.save()

    def end(self, summary: dict[str, float | None] | None) -> None:
        if summary:
            self.logger.log_metrics(known(summary), step=self.last)
        self.logger.finalize("success" if summary else "failed")


def by_layer(beta: dict[str, float]) -> dict[str, float]:
    """Prefix the names of layers with "beta/"."""
    return {f"beta/{layer}": value for layer, value in beta.items()}


def known(summary: dict[str, float | None]) -> dict[str, float]:
    """Return the entries that are not None."""
    return {name: value for name, value in summary.items() if value is not None}
