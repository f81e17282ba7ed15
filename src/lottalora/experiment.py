"""One run: config → data → net → wrap → task → fit → test at the best validation epoch → row."""

import logging
import math
import sys
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf import OmegaConf
from torch import nn

from lottalora import rows
from lottalora.config import identify
from lottalora.config import without_places
from lottalora.data.spec import DataSpec
from lottalora.data.splits import Splits
from lottalora.processes import Together
from lottalora.processes import count
from lottalora.processes import is_first
from lottalora.processes import run_together
from lottalora.scaffold import Account
from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import materialize
from lottalora.scaffold import set_fused
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.adapter import LEARNED
from lottalora.sweeps.claims import claimed
from lottalora.sweeps.claims import in_words
from lottalora.sweeps.failures import recorded
from lottalora.tracking.logger import About
from lottalora.tracking.logger import Watch
from lottalora.tracking.logger import watched

if TYPE_CHECKING:  # Lightning takes seconds to import
    from lottalora.tasks.base import Task
    from lottalora.training import Training

DIVERGENCE = "diverged in epoch %d: its loss, score or β is not finite: %s"
NO_SCORES = {"score": math.nan, "further": {}, "arms": {}}  # of a run that diverged
log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Train and score what the config describes and write its row, unless the row is there already."""
    if cfg.dry_run:
        from lottalora.dry_run import show

        show(cfg)
        return
    identity, results = identify(cfg), Path(cfg.paths.results)
    if is_done(cfg, identity):
        return
    rows.check_writable(identity, results)
    folder = results / "runs" / rows.run_name(identity)
    if cfg.trainer.devices == 1:
        run_once(cfg, identity, folder)
        return
    run_together(
        lambda together: run_once(cfg, identity, folder, together),
        lambda: train(cfg, identity, folder),
        devices=cfg.trainer.devices,
    )


def run_once(cfg: DictConfig, identity: dict, folder: Path, together: Together = nullcontext) -> None:
    """The same, unless another process is at it; `together` is entered where other devices take part."""
    results = Path(cfg.paths.results)
    with claimed(identity["digest"], results, log_file=folder / "log.txt") as other:
        if other:
            log.info("skipped: %s is run %s", rows.run_name(identity), in_words(other))
            return
        if is_done(cfg, identity):  # the claim may have come from a process that has just finished it
            return
        words = HydraConfig.get().overrides.task
        with recorded(identity["digest"], results, overrides=words, log_file=folder / "log.txt"), together():
            diverged = train(cfg, identity, folder)
        if diverged and HydraConfig.get().mode != RunMode.MULTIRUN:  # in a sweep the others go on
            leave_diverged()


def is_done(cfg: DictConfig, identity: dict) -> bool:
    """Whether the row is there already, which is said."""
    done = None if cfg.force else rows.find(identity["digest"], Path(cfg.paths.results))
    if done:
        how = "done, diverged" if rows.read(done)["diverged"] else "done"
        log.info("%s: %s (force=true to run again)", how, done)
    return done is not None


def train(cfg: DictConfig, identity: dict, folder: Path) -> bool:
    """The run itself, and whether it diverged; `folder` takes its checkpoint."""
    if cfg.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator='gpu' but PyTorch sees no GPU. Type trainer.accelerator=cpu.")
    if cfg.trainer.precision == "16-mixed" and kind_of_device(cfg) == "cpu":
        raise ValueError("trainer.precision=16-mixed needs a GPU. Type trainer.precision=bf16-mixed.")
    torch.set_num_threads(cfg.trainer.threads)
    torch.set_flush_denormal(True)  # numbers below 1e-38 are 0: they make a CfC's gradient 11 times as slow
    torch.manual_seed(cfg.seed)
    data = instantiate(cfg.data)
    net, account = build(cfg, data.spec)
    splits = data.read()
    logger = instantiate(cfg.logger) if cfg.logger._target_ and is_first() else None
    with watched(logger, about_run(cfg, identity, folder)) as watch:
        measured = train_and_test(cfg, data.spec, splits, net, folder, watch)
        if not is_first():
            return measured["diverged"]
        row = identity | measured | record(cfg, data.spec, account)
        path = rows.write(row, Path(cfg.paths.results))
        if watch:
            watch.row = row
    remove_checkpoint(folder)
    if row["diverged"]:
        log.warning(DIVERGENCE, row["epochs"], path)
    else:
        log.info("%s %.4f, %.0f s: %s", row["metric"], row["score"], row["seconds"], path)
    return row["diverged"]


def build(cfg: DictConfig, spec: DataSpec) -> tuple[nn.Module, Account]:
    """The net at the size asked for, dense or on its scaffold, and the account of its weights."""
    model = cfg.model
    net = instantiate(model.net, spec.in_shape, spec.out_dim, **model.sizes[model.size], _convert_="all")
    if not cfg.scaffold:
        give_values(net)
        return net, Account.of_dense(net)
    scaffold = Scaffold(**OmegaConf.to_container(cfg.scaffold, resolve=True))
    if scaffold.family == LEARNED:  # it keeps the values that the net has
        give_values(net)
    drawn = cfg.trainer.devices == 1 or cfg.trainer.strategy == "ddp"  # by fsdp each process draws its rows
    account = wrap(net, scaffold, keep=list(model.keep), freeze=list(model.freeze), drawn=drawn)
    give_values(net, drawn=drawn)
    set_fused(net, cfg.fused)
    return net, account


def give_values(net: nn.Module, *, drawn: bool = True) -> None:
    """Values for a net that builds itself on the meta device, unless that is where it is wanted.

    After `wrap`: no dense weight is made that a scaffold replaces.
    """
    if hasattr(net, "start") and torch.get_default_device().type != "meta":
        materialize(net, start=net.start, drawn=drawn)


def account_of(cfg: DictConfig) -> Account:
    """Where every weight would go: the net is built on the meta device, and no data are read."""
    spec = instantiate(cfg.data).spec
    with torch.device("meta"):
        return build(cfg, spec)[1]


def about_run(cfg: DictConfig, identity: dict, folder: Path) -> About:
    """What a logger is told of the run; its group is the sweep that the run is part of."""
    group = HydraConfig.get().runtime.choices.get("sweeps")
    return About(identity=identity, config=without_places(cfg), folder=folder, group=group)


def train_and_test(
    cfg: DictConfig,
    spec: DataSpec,
    splits: Splits,
    net: nn.Module,
    folder: Path,
    watch: Watch | None,
) -> dict:
    """Fit, then score the test part with the weights of the best validation epoch: what a row measures."""
    from lottalora.provenance import provenance  # Lightning takes seconds to import
    from lottalora.resampling import ResampleEachEpoch
    from lottalora.resampling import scaffold_of_epoch
    from lottalora.sharing import share_out
    from lottalora.tracking.epochs import Epochs
    from lottalora.tracking.progress import Progress
    from lottalora.training import Plan
    from lottalora.training import fit

    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    if count() > 1:
        splits = share_out(task, splits, strategy=cfg.trainer.strategy, device=kind_of_device(cfg))
    callbacks = [ResampleEachEpoch()] if cfg.resample == "epoch" else []
    callbacks += [Progress()] if is_first() else []
    trained = fit(
        task,
        splits,
        Plan(**{each.name: cfg.trainer[each.name] for each in fields(Plan)}),
        seed=cfg.seed,
        higher_is_better=spec.higher_is_better,
        folder=folder,
        callbacks=[*callbacks, *([Epochs(watch)] if watch else [])],
    )
    if cfg.resample == "epoch" and not trained.diverged:
        scaffold_of_epoch(net, trained.best_epoch)
    measured = {
        **(NO_SCORES if trained.diverged else scores(cfg, trained, task, splits)),
        "validation_score": trained.validation_score,
        "best_epoch": trained.best_epoch,
        "epochs": trained.epochs,
        "seconds": trained.seconds,
        "beta": beta_values(net),
        "beta_decay": trained.beta_decay,
        "data_fingerprint": splits.fingerprint(),
        "history": trained.history,
    }
    measured["diverged"] = not math.isfinite(measured["score"])
    return measured | provenance(trained.trainer.strategy.root_device, trained.trainer.precision)


def scores(cfg: DictConfig, trained: "Training", task: "Task", splits: Splits) -> dict:
    """What the test says of the trained weights: the score, further ones, and that without the scaffold."""
    from lottalora.training import score

    found = {"score": score(trained.trainer, task, splits), "further": task.further_scores(), "arms": {}}
    if cfg.remove_scaffold:
        with without_scaffold(task.net):
            found["arms"] = {"scaffold_removed": score(trained.trainer, task, splits)}
    return found


def record(cfg: DictConfig, spec: DataSpec, account: Account) -> dict:
    """The part of a row that says how it was scored and counted."""
    return {
        "metric": spec.metric,
        "higher_is_better": spec.higher_is_better,
        "chance": spec.chance,
        "counts": account.counts(),
        "account": account.as_dict()["entries"],
        "config": without_places(cfg),
    }


def kind_of_device(cfg: DictConfig) -> str:
    return "cuda" if cfg.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def remove_checkpoint(folder: Path) -> None:
    from lottalora.checkpoints import remove

    remove(folder)


def leave_diverged() -> None:
    from lottalora.checkpoints import DIVERGED

    sys.exit(DIVERGED)
