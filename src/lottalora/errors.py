"""Report user errors in one line; keep tracebacks for bugs."""

import contextlib
import difflib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.errors import HydraException
from hydra.errors import InstantiationException
from hydra.errors import MissingConfigException
from hydra.errors import OverrideParseException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from lottalora import CONF
from lottalora.messages import flatten
from lottalora.messages import nearest_first
from lottalora.uncaught import SHOW_ALL
from lottalora.uncaught import missing_package

PACKAGE = Path(__file__).parent
AROUND = (Path(__file__), PACKAGE / "cli/run.py")  # files of ours that Hydra is called from
# Exit codes of run.py beside 0 and 1.
STOPPED = 75  # sysexits' EX_TEMPFAIL: nothing is wrong, run the same command again
HELD = 77  # another process runs this cell
DIVERGED = 76  # loss, score or β was not finite; the row says so, and the run is done
PLUGINS = {"hydra/launcher/submitit_slurm": "hydra-submitit-launcher"}  # choice → package that brings it
log = logging.getLogger(__name__)


@contextlib.contextmanager
def one_line_errors(conf: Path) -> Iterator[None]:
    """Turn what a person did wrong into `error: …` and exit code 1. LOTTALORA_TRACEBACK=1 shows all.

    Args:
        conf: folder of the config, from which nearest names are offered.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands errors on in place of printing them
    try:
        yield
    except BrokenPipeError:  # `run.py --help | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit as ended:
        if ended.code == 1 and isinstance(ended.__context__, KeyboardInterrupt):  # Lightning's, silent
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        leave(error, conf)
        raise


@contextlib.contextmanager
def job_errors(conf: Path) -> Iterator[None]:
    """The same inside a job. In a multirun the other jobs go on: each failure is named at once, and Hydra
    raises the first of them after the last job."""
    try:
        yield
    except Exception as error:
        job = HydraConfig.get()
        if job.mode == RunMode.RUN:
            leave(error, conf)
            raise
        error.add_note(f"in job {' '.join(job.overrides.task)}")
        log.error("failed: %s", in_one_line(error, conf) or traceback.format_exc())
        raise


def leave(error: Exception, conf: Path) -> None:
    """Exit with the one line of an error that a person can put right; return if it is a bug."""
    line = in_one_line(error, conf)
    if line is not None and not os.environ.get(SHOW_ALL):
        sys.stderr.write(f"error: {line}\n")
        sys.exit(1)


def in_one_line(error: Exception, conf: Path = CONF) -> str | None:
    """The one line for an error that a person can put right, or None for a bug."""
    if isinstance(error, MissingConfigException):
        return unknown_choice(error)
    if isinstance(error, InstantiationException):
        return not_instantiated(error)
    if isinstance(error, ConfigCompositionException) and (
        match := re.match(r"Could not override '(.+?)'", str(error))
    ):
        return unknown_key(match[1], conf)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value. Type {error.full_key}=VALUE."
    if isinstance(error, OverrideParseException):
        if (conf / "sweeps" / f"{error.override}.yaml").is_file():
            return f"{error.override!r} is no KEY=VALUE. Type sweeps={error.override}."
        return f"{error.override!r} cannot be read. Quote unusual values: \"KEY='VALUE'\". Write $HOME for ~."
    if isinstance(error, HydraException):
        return " ".join(str(error).split())
    return deliberate(error) or missing_package(error) or refused_by_hydra(error) or said_by_submitit(error)


def not_instantiated(error: InstantiationException) -> str | None:
    """Why an object of the config could not be made; None if that is a bug of ours."""
    cause = error.__cause__
    if cause is None:  # a name that Hydra itself refuses
        return " ".join(str(error).split())
    absent = re.match(r"Error locating target '(.*?)', set env", str(error))
    reason = cause.__cause__ or cause
    if absent and is_absent(absent[1], reason):
        return f"Unknown _target_ {absent[1]!r}: no such name can be imported. Type PACKAGE.MODULE.CLASS."
    typed = any("_target_=" in word for word in sys.argv[1:])
    if raised_by_hydra(cause) and (typed or isinstance(cause, TypeError)):
        return " ".join(str(error).split())  # what the config names does not take these settings
    return deliberate(cause) or missing_package(reason)


def is_absent(target: str, reason: BaseException) -> bool:
    """Whether the name leads nowhere, as opposed to a module that is there and fails when imported."""
    if isinstance(reason, ModuleNotFoundError):
        return f"{target}.".startswith(f"{reason.name}.")
    return raised_by_hydra(reason)


def raised_by_hydra(error: BaseException) -> bool:
    """Return whether Hydra itself raised the error."""
    places = traceback.extract_tb(error.__traceback__)
    return bool(places) and "/hydra/_internal/" in places[-1].filename


def deliberate(error: BaseException | None) -> str | None:
    """Return the message of an error that this package raised on purpose; None for any other."""
    if not isinstance(error, ValueError | OSError):
        return None
    places = traceback.extract_tb(
        error.__traceback__
    )  # none: it came from another process, whose log has them
    if places and not is_raise_of_ours(places[-1]):
        return None
    return " ".join(
        [" ".join(str(error).split()), *(f"({note})" for note in getattr(error, "__notes__", []))]
    )


def is_raise_of_ours(place: traceback.FrameSummary) -> bool:
    """Return whether the frame is a `raise` statement of this package."""
    return Path(place.filename).is_relative_to(PACKAGE) and (place.line or "").startswith("raise ")


def refused_by_hydra(error: Exception) -> str | None:
    """Explain what Hydra raises before our code is reached: a value that is no choice, or a results folder
    that cannot be written, in which it wants to keep the record of a multirun."""
    places = [Path(place.filename) for place in traceback.extract_tb(error.__traceback__)]
    if any(place.is_relative_to(PACKAGE) and place not in AROUND for place in places):
        return None
    if isinstance(error, OSError) and error.filename:
        return (
            f"Cannot write to {error.filename}: {error.strerror}. Set paths.results=DIR to a writable folder."
        )
    return " ".join(str(error).split()) if type(error) is ValueError else None


def said_by_submitit(error: Exception) -> str | None:
    """Explain submitit's errors: Slurm refused the jobs, or one ended without a result."""
    if type(error).__module__ != "submitit.core.utils":
        return None
    said = " ".join(str(error).replace("-" * 40, "").split())
    return f"{said} The other jobs go on. Repeat the command to run again what is not done."


def unknown_choice(error: MissingConfigException) -> str:
    """Say in one line which choices the config group has, or which package is missing."""
    if error.missing_cfg_file in PLUGINS:
        package = PLUGINS[error.missing_cfg_file]
        return f"This launcher needs the package {package}. Type: pip install {package}"
    if not error.missing_cfg_file:  # conf/ itself, or what holds it
        return " ".join(str(error).split())
    group, _, name = error.missing_cfg_file.rpartition("/")
    return f"Unknown {group} {name!r}. Known: {', '.join(nearest_first(name, error.options or []))}."


def unknown_key(key: str, conf: Path) -> str:
    """Say in one line which modes have an unknown key, or which keys are nearest to it."""
    if modes := modes_with(key, conf):
        return f"Unknown key {key!r} in this mode. Modes that have it: {', '.join(modes)}."
    known = known_keys(key, conf)
    same_end = [name for name in known if name.endswith(f".{key}")]  # lr: optimizer.lr
    near = same_end[:3] or difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    offer = f"Nearest: {', '.join(near)}. " if near else ""
    return f"Unknown key {key!r}. {offer}The flag `--cfg job` lists all keys."


def modes_with(key: str, conf: Path) -> list[str]:
    """The modes whose file sets this key."""
    files = sorted((conf / "mode").glob("*.yaml"))
    return [file.stem for file in files if key in flatten(OmegaConf.to_container(OmegaConf.load(file)))]


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
    return sorted({*groups, *flatten(OmegaConf.to_container(cfg))})


def cause_of(error: BaseException) -> str:
    """Return the one-line message of a user error, or type and text of any other."""
    known = in_one_line(error) if isinstance(error, Exception) else None
    text = " ".join(str(error).split())[:500]
    return known or f"{type(error).__name__}: {text}".removesuffix(": ")
