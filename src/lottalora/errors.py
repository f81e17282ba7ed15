"""What a person did wrong, said in one line. A bug of ours keeps its traceback."""

import contextlib
import difflib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.errors import HydraException
from hydra.errors import InstantiationException
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

PACKAGE = Path(__file__).parent
CONF = PACKAGE.parents[1] / "conf"  # of the repository that this package was installed from
log = logging.getLogger(__name__)


@contextlib.contextmanager
def one_line_errors(conf: Path) -> Iterator[None]:
    """Turn what a person did wrong into `error: …` and exit code 1. HYDRA_FULL_ERROR=1 shows every traceback.

    Args:
        conf: folder of the config, from which nearest names are offered.
    """
    if os.environ.get("HYDRA_FULL_ERROR"):
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands errors on in place of printing them
    try:
        yield
    except BrokenPipeError:  # `run.py --help | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        line = in_one_line(error, conf)
        if line is None:
            raise
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)


@contextlib.contextmanager
def named_job() -> Iterator[None]:
    """In a multirun say at once which job failed and why: Hydra raises only the first error, after the last job."""
    try:
        yield
    except Exception as error:
        job = HydraConfig.get()
        if job.mode == RunMode.MULTIRUN:
            error.add_note(f"in job {' '.join(job.overrides.task)}")
            log.error("failed: %s", deliberate(error) or traceback.format_exc())
        raise


def in_one_line(error: Exception, conf: Path = CONF) -> str | None:
    """The one line for an error that a person can put right, or None for a bug."""
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if isinstance(error, InstantiationException):
        return deliberate(error.__cause__)
    if isinstance(error, ConfigCompositionException) and (match := re.match(r"Could not override '(.+?)'", str(error))):
        return unknown_key(match[1], conf)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: this pair of model and data has no recipe, so give {error.full_key}=…"
    if isinstance(error, HydraException):
        return " ".join(str(error).split())
    return deliberate(error) or unwritable_by_hydra(error)


def deliberate(error: BaseException | None) -> str | None:
    """The message of an error that a `raise` of this package made for people; None for any other."""
    if not isinstance(error, ValueError | OSError):
        return None
    place = traceback.extract_tb(error.__traceback__)[-1]
    if not Path(place.filename).is_relative_to(PACKAGE) or not (place.line or "").startswith("raise "):
        return None
    return " ".join([" ".join(str(error).split()), *(f"({note})" for note in getattr(error, "__notes__", []))])


def unwritable_by_hydra(error: Exception) -> str | None:
    """Hydra writes the record of a multirun into the results folder before the first job begins."""
    places = [Path(place.filename) for place in traceback.extract_tb(error.__traceback__)]
    in_job = any(place.is_relative_to(PACKAGE) and place != Path(__file__) for place in places)
    if not isinstance(error, OSError) or not error.filename or in_job:
        return None
    return f"Cannot write to {error.filename}: {error.strerror}. Set paths.results=DIR to a writable folder."


def unknown_choice(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    return f"Unknown {group} {name!r}. Known: {', '.join(nearest_first(name, error.options or []))}."


def unknown_key(key: str, conf: Path) -> str:
    near = difflib.get_close_matches(key, known_keys(key, conf), n=3, cutoff=0.5)
    offer = f"Nearest: {', '.join(near)}. " if near else ""
    return f"Unknown key {key!r}. {offer}`python run.py --help` lists all keys."


def known_keys(mistyped: str, conf: Path) -> list[str]:
    """Every key of the config that the rest of the command line composes, with the names of the groups."""
    from hydra import compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    groups = [group.name for group in conf.iterdir() if group.is_dir()]
    typed = [word for word in sys.argv[1:] if word.partition("=")[0] in groups and "," not in word]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        try:
            cfg = compose("config", overrides=[word for word in typed if not word.startswith(f"{mistyped}=")])
        except HydraException:  # a second mistake on the same command line
            cfg = compose("config")
    return [*groups, *flatten(OmegaConf.to_container(cfg))]


def flatten(container: dict, prefix: str = "") -> dict[str, object]:
    """{"a": {"b": 1}} → {"a.b": 1}; an empty mapping stays a value."""
    flat = {}
    for key, value in container.items():
        deeper = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return flat


def nearest_first(name: str, known: Iterable[str]) -> list[str]:
    """All known names, those that resemble `name` first, the rest sorted."""
    near = difflib.get_close_matches(name, known := sorted(known), n=3, cutoff=0.5)
    return near + [each for each in known if each not in near]
