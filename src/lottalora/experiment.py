"""One run: config → data → net → wrap → task → fit → test at the best validation epoch → row."""

import logging
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf import OmegaConf
from torch import nn

from lottalora import rows
from lottalora.config import check
from lottalora.config import identify
from lottalora.data.spec import DataSpec
from lottalora.scaffold import Account
from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Train and score what the config describes and write its row, unless the row is there already."""
    check(cfg, HydraConfig.get().overrides.task)
    if cfg.dry_run:
        from lottalora.dry_run import show

        show(cfg)
        return
    identity, results = identify(cfg), Path(cfg.paths.results)
    done = None if cfg.force else rows.find(identity["digest"], results)
    if done:
        log.info("done: %s (force=true to run again)", done)
        return
    rows.check_writable(identity, results)
    torch.set_num_threads(cfg.trainer.threads)
    torch.manual_seed(cfg.seed)
    data = instantiate(cfg.data)
    net, account = build(cfg, data.spec)
    folder = results / "runs" / run_name(identity)
    row = identity | train_and_test(cfg, data, net, folder) | record(cfg, data.spec, account)
    path = rows.write(row, results)
    remove_checkpoint(folder)
    log.info("%s %.4f, %.0f s: %s", row["metric"], row["score"], row["seconds"], path)


def build(cfg: DictConfig, spec: DataSpec) -> tuple[nn.Module, Account]:
    """The net at the size asked for, dense or on its scaffold, and the account of its weights."""
    model = cfg.model
    net = instantiate(model.net, spec.in_shape, spec.out_dim, **model.sizes[model.size], _convert_="all")
    if not cfg.scaffold:
        return net, Account.of_dense(net)
    scaffold = Scaffold(**OmegaConf.to_container(cfg.scaffold, resolve=True))
    return net, wrap(net, scaffold, keep=list(model.keep), freeze=list(model.freeze))


def train_and_test(cfg: DictConfig, data, net: nn.Module, folder: Path) -> dict:  # noqa: ANN001  any class of data/
    """Fit, then score the test part with the weights of the best validation epoch: the measured part of a row."""
    from lottalora.provenance import provenance
    from lottalora.training import fit
    from lottalora.training import score

    splits = data.read()
    task = instantiate(cfg.task, net, data.spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    trained = fit(
        task,
        splits,
        seed=cfg.seed,
        epochs=cfg.trainer.epochs,
        accelerator=cfg.trainer.accelerator,
        higher_is_better=data.spec.higher_is_better,
        folder=folder,
        checkpoint_every=cfg.trainer.checkpoint_every,
    )
    measured = {
        "score": score(trained.trainer, task, splits),
        "validation_score": trained.validation_score,
        "best_epoch": trained.best_epoch,
        "seconds": trained.seconds,
        "beta": beta_values(net),
        "data_fingerprint": splits.fingerprint(),
        "arms": {},
    }
    if cfg.remove_scaffold:
        with without_scaffold(net):
            measured["arms"] = {"scaffold_removed": score(trained.trainer, task, splits)}
    return measured | provenance(trained.trainer.strategy.root_device)


def record(cfg: DictConfig, spec: DataSpec, account: Account) -> dict:
    """The part of a row that says how it was scored, trained and counted."""
    return {
        "metric": spec.metric,
        "higher_is_better": spec.higher_is_better,
        "chance": spec.chance,
        "epochs": cfg.trainer.epochs,
        "counts": account.counts(),
        "account": account.as_dict()["entries"],
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def remove_checkpoint(folder: Path) -> None:
    from lottalora.checkpoints import remove

    remove(folder)


def run_name(identity: dict) -> str:
    """The same name as the row's, which the folder of its checkpoint bears."""
    path = rows.path_of(identity, Path())
    return "-".join([*path.parts[1:-1], path.stem])
