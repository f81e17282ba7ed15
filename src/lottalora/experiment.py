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
from lottalora.dry_run import show
from lottalora.scaffold import Account
from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Train and score what the config describes and write its row, unless the row is there already."""
    check(cfg, HydraConfig.get().overrides.task)
    identity = identify(cfg)
    data = instantiate(cfg.data)
    if cfg.dry_run:
        with torch.device("meta"):
            _, account = build(cfg, data.spec)
        show(identity, account, as_json=cfg.dry_run == "json")
        return
    results = Path(cfg.paths.results)
    done = None if cfg.force else rows.find(identity["digest"], results)
    if done:
        log.info("done: %s (force=true to run again)", done)
        return
    rows.check_writable(identity, results)
    torch.set_num_threads(cfg.trainer.threads)
    torch.manual_seed(cfg.seed)
    net, account = build(cfg, data.spec)
    outcome = train_and_test(cfg, identity, data, net)
    path = rows.write(identity | outcome | {"counts": counts(account), "account": account.as_dict()}, results)
    log.info("%s %.4f at epoch %d, %.0f s: %s", data.spec.metric, outcome["score"], outcome["best_epoch"] + 1, outcome["seconds"], path)
