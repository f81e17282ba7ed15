"""One run on one screen: config → claim → data → build → fit → score → row."""

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from lottalora import build
from lottalora.config.identity import identify
from lottalora.config.identity import portable
from lottalora.data.spec import DataSpec
from lottalora.data.splits import Splits
from lottalora.distributed.collectives import is_first
from lottalora.distributed.collectives import world_size
from lottalora.distributed.launch import run_on_devices
from lottalora.errors import DIVERGED
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.tasks.metrics import load_torchmetrics
from lottalora.tracking import logger as tracking

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Train and score what the config describes and write its row, unless the row exists."""
    identity, results = identify(cfg), Path(cfg.paths.results)
    if not cfg.force and rows.is_done(identity["digest"], results):
        return
    rows.check_writable(identity, results)
    if cfg.trainer.devices == 1:
        run_claimed(cfg, identity)
        return
    run_on_devices(
        lambda join: run_claimed(cfg, identity, join), lambda: train(cfg, identity), cfg.trainer.devices
    )


def run_claimed(
    cfg: DictConfig, identity: dict, join: Callable[[], AbstractContextManager] = nullcontext
) -> None:
    """Train under the claim on this cell; `join` is entered where other devices take part."""
    digest, results = identity["digest"], Path(cfg.paths.results)
    log_file = rows.run_folder(identity, results) / "log.txt"
    with claims.claimed(digest, results, log_file=log_file) as other:
        if other:
            log.info("skipped: %s is run %s", rows.run_name(identity), claims.holder_text(other))
        elif cfg.force or not rows.is_done(digest, results):  # by a process that has just released its claim
            overrides = HydraConfig.get().overrides.task
            with failures.recorded(digest, results, overrides=overrides, log_file=log_file), join():
                diverged = train(cfg, identity)
            if diverged and HydraConfig.get().mode != RunMode.MULTIRUN:  # in a sweep the other runs go on
                sys.exit(DIVERGED)


def train(cfg: DictConfig, identity: dict) -> bool:
    """Read the data, build the net, fit and score it, and write the row; return whether the run diverged."""
    load_torchmetrics()  # before Lightning, which would import all of it
    from lottalora.training import checkpoints

    build.set_up_torch(cfg.trainer, seed=cfg.seed)
    logger = instantiate(cfg.logger) if cfg.logger._target_ and is_first() else None
    data = instantiate(cfg.data)
    net, account = build.build(cfg, data.spec)
    splits = data.read()
    results = Path(cfg.paths.results)
    folder, group = rows.run_folder(identity, results), HydraConfig.get().runtime.choices.get("sweeps")
    about = tracking.About(identity=identity, config=portable(cfg), folder=folder, group=group)
    with tracking.watched(logger, about) as watch:
        measured = fit_and_score(cfg, data.spec, splits, net, folder, watch)
        if not is_first():
            return measured["diverged"]
        counted = {"counts": account.counts(), "account": account.as_dict()["entries"]}
        row = identity | measured | data.spec.scoring() | counted | {"config": portable(cfg)}
        path = rows.write(row, results)
        if watch:
            watch.row = row
    checkpoints.remove(folder)
    if row["diverged"]:
        log.warning("diverged in epoch %d: its loss, score or β is not finite: %s", row["epochs"], path)
    else:
        log.info("%s %.4f, %.0f s: %s", row["metric"], row["score"], row["seconds"], path)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            log.info("next: %s", rows.report_command(results))
    return row["diverged"]


def fit_and_score(
    cfg: DictConfig,
    spec: DataSpec,
    splits: Splits,
    net: nn.Module,
    folder: Path,
    watch: tracking.Watch | None,
) -> dict:
    """Fit, then score the test part with the weights of the best validation epoch."""
    from lottalora.distributed.shard import distribute
    from lottalora.tracking.epochs import watchers
    from lottalora.training import fit
    from lottalora.training.measure import measure
    from lottalora.training.resampling import resamplers

    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    if world_size() > 1:
        splits = distribute(
            task, splits, strategy=cfg.trainer.strategy, device=build.device_kind(cfg.trainer)
        )
    fitted = fit.fit(
        task,
        splits,
        fit.TrainerSettings.of(cfg.trainer),
        seed=cfg.seed,
        higher_is_better=spec.higher_is_better,
        folder=folder,
        callbacks=[*resamplers(cfg.resample), *watchers(watch)],
    )
    return measure(task, splits, fitted, resample=cfg.resample, remove_scaffold=cfg.remove_scaffold)
