"""The dry run: show the essentials of the config and what becomes of every weight, and train nothing."""

import json
import sys

from omegaconf import DictConfig

from lottalora.build import account_of
from lottalora.config.identity import identify

ESSENTIALS = (
    "model",
    "size",
    "data",
    "mode",
    "init",
    "rank",
    "alpha",
    "seed",
    "backbone_seed",
    "recipe",
    "changed",
    "digest",
)


def show(cfg: DictConfig) -> None:
    """Print to standard output; the net is built on the meta device and no data are read.

    dry_run=json prints one line of JSON with the four counts and nothing else.
    """
    account = account_of(cfg)
    if cfg.dry_run == "json":
        sys.stdout.write(json.dumps(account.counts()) + "\n")
        return
    identity = identify(cfg)
    essentials = {key: identity[key] for key in ESSENTIALS} | {"epochs": cfg.trainer.epochs}
    width = max(map(len, essentials))
    lines = [f"{key:<{width}}  {value}" for key, value in essentials.items() if value not in (None, "", {})]
    sys.stdout.write("\n".join([*lines, "", account.table()]) + "\n")
