"""Train one network on one data set and leave one row: python run.py model=mlp data=mnist rank=8."""

import os
import sys
from pathlib import Path

from lottalora import uncaught

uncaught.install()

from lottalora.cli import manual  # noqa: E402

CONF = Path(__file__).parent / "conf"
if __name__ == "__main__" and manual.is_asked(sys.argv[1:]):
    manual.show(CONF)
    sys.exit()

# Before torch is imported: OpenMP threads that spin while they wait make small models a hundred times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402

from lottalora.config.check import check  # noqa: E402
from lottalora.errors import job_errors  # noqa: E402
from lottalora.errors import one_line_errors  # noqa: E402


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    with job_errors(CONF):
        check(cfg)
        if cfg.dry_run:
            from lottalora.cli.dry_run import show as run  # torch takes a second to import
        else:
            from lottalora.experiment import run
        run(cfg)


if __name__ == "__main__":
    with one_line_errors(CONF):
        main()
