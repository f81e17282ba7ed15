"""`lottalora run KEY=VALUE …` and `python run.py KEY=VALUE …`: one run, or with -m a sweep."""

import os
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from contextlib import nullcontext
from typing import TYPE_CHECKING

from lottalora import CONF
from lottalora import uncaught
from lottalora.cli import completion
from lottalora.cli import manual

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Hydra's flags that are followed by a word of their own; --info may stand alone.
WITH_VALUE = (
    "-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir",
    "--experimental-rerun", "-i", "--info",
)  # fmt: skip
HELP = "train one network on one data set, or with -m a sweep; the same as run.py"


def main(arguments: Sequence[str], *, typed: str = manual.SCRIPT) -> None:
    """Show the manual, or hand the arguments to Hydra.

    Args:
        arguments: overrides and Hydra's own flags.
        typed: the words before them on the command line, as the manual shows them.
    """
    uncaught.install()
    if manual.is_asked(arguments):
        manual.show(CONF, typed=typed)
        return
    arguments = flags_first(arguments)
    sizes = completion.sizes_asked(arguments, CONF)
    if sizes is not None:
        completion.show(sizes)
        return
    # Before torch is imported: OpenMP threads that spin while they wait slow small models a hundred times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import hydra

    from lottalora.config import loader
    from lottalora.config.check import check_one_choice
    from lottalora.errors import one_line_errors

    sys.argv = [sys.argv[0], *arguments]  # where Hydra reads them
    loader.install()
    mode = composed_once() if mode_is_by_flag(arguments) else nullcontext()
    with one_line_errors(CONF), loader.interpolations_parsed_once(), mode:
        check_one_choice(arguments)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The same words with Hydra's flags before the overrides: its parser takes none behind them."""
    flags, overrides = [], []
    takes_value = False
    for word in arguments:
        is_flag = word.startswith("-")
        (flags if is_flag or (takes_value and "=" not in word) else overrides).append(word)
        takes_value = is_flag and word in WITH_VALUE
    return flags + overrides


def mode_is_by_flag(arguments: Sequence[str]) -> bool:
    """Whether -m alone says if there are many runs: no word sets hydra.mode, as no file of conf does."""
    flags = {word for word in arguments if word.startswith("-")}
    return flags <= {"-m", "--multirun"} and not any("hydra.mode" in word for word in arguments)


@contextmanager
def composed_once() -> Iterator[None]:
    """A context manager under which Hydra does not compose the whole config only to look for hydra.mode."""
    from hydra._internal.hydra import Hydra

    before = Hydra.get_mode
    Hydra.get_mode = no_mode
    try:
        yield
    finally:
        Hydra.get_mode = before


def no_mode(*_: object, **__: object) -> None:
    """What Hydra finds for hydra.mode where no file and no word sets it."""


def job(cfg: "DictConfig") -> None:
    """Check one composed config, then run it or, with dry_run, show what it would be."""
    from lottalora.config.check import check
    from lottalora.errors import job_errors

    with job_errors(CONF):
        check(cfg)
        if cfg.dry_run:
            from lottalora.cli.dry_run import show as run  # torch takes a second to import
        else:
            from lottalora.experiment import run
        run(cfg)
