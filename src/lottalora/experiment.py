"""One run on one screen: config → claim → data → build → fit → score → row."""

import sys
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from lottalora import build
from lottalora.artifacts import learned
from lottalora.artifacts import weights
from lottalora.artifacts.files import is_done
from lottalora.artifacts.runs import architecture_of
from lottalora.artifacts.runs import refuse_what_cannot_fit
from lottalora.artifacts.runs import save_run
from lottalora.config.identity import identify
from lottalora.config.identity import portable
from lottalora.data.spec import DataSpec
from lottalora.data.splits import Splits
from lottalora.distributed import collectives
from lottalora.distributed import launch
from lottalora.errors import DIVERGED
from lottalora.errors import HELD
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.results.schema import row_of
from lottalora.tasks.imports import before_lightning
from lottalora.tracking import logger as tracking
from lottalora.tracking.logger import Watch


def run(cfg: DictConfig) -> None:
    """Train and score what the config describes and write its row, unless the row exists."""
    identity, results = identify(cfg), Path(cfg.paths.results)
    if is_done(cfg, identity["digest"]):
        return
    rows.check_writable(identity, results)
    if cfg.trainer.devices == 1:
        run_claimed(cfg, identity)
    else:
        lead, follow = (lambda join: run_claimed(cfg, identity, join)), (lambda: train(cfg, identity))
        launch.run_on_devices(lead, follow, cfg.trainer.devices)


def run_claimed(cfg: DictConfig, identity: dict, join: launch.Together = nullcontext) -> None:
    """Train under the claim on this cell; `join` is entered where other devices take part."""
    digest, results = identity["digest"], Path(cfg.paths.results)
    log_file = rows.run_folder(identity, results) / "log.txt"
    with claims.claimed(digest, results, log_file=log_file) as other:
        code = HELD if other else 0
        if other:
            claims.log_skipped(rows.run_name(identity), other)
        elif not is_done(cfg, digest):  # by a process that has just released its claim
            overrides = HydraConfig.get().overrides.task
            with failures.recorded(digest, results, overrides=overrides, log_file=log_file), join():
                code = DIVERGED if train(cfg, identity) else 0
    if code and HydraConfig.get().mode != RunMode.MULTIRUN:  # in a sweep the other runs go on
        sys.exit(code)


def train(cfg: DictConfig, identity: dict) -> bool:
    """Read the data, build the net, fit and score it, and write the row; return whether the run diverged."""
    before_lightning()
    from lottalora.training.checkpoints import remove

    build.set_up_torch(cfg.trainer, seed=cfg.seed)
    logger = instantiate(cfg.logger) if cfg.logger._target_ and collectives.is_first() else None
    data = instantiate(cfg.data)
    net, account = build.build(cfg, data.spec)
    identity = identity | learned.fingerprint(cfg)
    if cfg.artifact:
        architecture_of(cfg.model.net._target_)  # before it is trained
    refuse_what_cannot_fit(net, cfg.save)
    start, splits, results = weights.start_of(net, cfg), data.read(), Path(cfg.paths.results)
    folder, group = rows.run_folder(identity, results), HydraConfig.get().runtime.choices.get("sweeps")
    about = tracking.About(identity=identity, config=portable(cfg), folder=folder, group=group)
    with tracking.watched(logger, about) as watch:
        measured = fit_and_score(cfg, data.spec, splits, net, folder, watch)
        if not collectives.is_first():
            return measured["diverged"]
        row = row_of(identity, measured, data.spec.scoring(), account.as_dict(net), about.config)
        row |= save_run(net, data.spec, splits, row, results) | weights.keep(net, start, row, results)
        path = rows.write(row, results)
        if watch:
            watch.row = row
    remove(folder)
    rows.log_end(row, path, hint=HydraConfig.get().mode != RunMode.MULTIRUN)
    return row["diverged"]


def fit_and_score(
    cfg: DictConfig, spec: DataSpec, splits: Splits, net: nn.Module, folder: Path, watch: Watch | None
) -> dict:
    """Fit, then score the test part with the weights of the best validation epoch."""
    from lottalora.distributed.shard import distribute
    from lottalora.tracking.epochs import watchers
    from lottalora.training import fit
    from lottalora.training.measure import measure
    from lottalora.training.resampling import Resampling

    resampling = Resampling.of(cfg.resample)
    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    if collectives.world_size() > 1:
        device = build.device_kind(cfg.trainer)
        splits = distribute(task, splits, strategy=cfg.trainer.strategy, device=device)
    fitted = fit.fit(
        task, resampling.splits(splits), resampling.settings(fit.TrainerSettings.of(cfg.trainer)),
        seed=cfg.seed, higher_is_better=spec.higher_is_better, folder=folder,
        callbacks=[*resampling.callbacks(), *watchers(watch)], forced=cfg.force,
    )  # fmt: skip
    how = {"remove_scaffold": cfg.remove_scaffold, "precision": cfg.save.precision}
    return measure(task, splits, fitted, resampling=resampling, **how)
