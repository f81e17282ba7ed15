"""The real command, and the config that it composes."""

import copy
import functools
import os
import subprocess
from pathlib import Path

import pytest
from hydra import compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf import open_dict

import lottalora.config.check  # noqa: F401  # the functions that config files use
from tests import commands

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(tmp_path):
    """run.py in a process of its own and in an empty folder, without a way to the network."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        unreachable = "http://127.0.0.1:9"
        environment = {
            "http_proxy": unreachable,
            "https_proxy": unreachable,
            "OMP_NUM_THREADS": "1",
        } | environment
        return commands.run(ROOT / "run.py", *words, cwd=tmp_path, env=os.environ | environment, timeout=120)

    return run


@pytest.fixture
def composed():
    """The config as the command line composes it, with Hydra's own part where it is needed."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):

        def make(*words: str):
            return composed_of(*words)

        yield make


@pytest.fixture
def typed(monkeypatch):
    """The config of a command line, inside a job of Hydra's, as run.py sees it."""
    held = HydraConfig.instance().cfg
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):

        def make(*words: str):
            whole = composed_of(*words, return_hydra_config=True)
            whole.hydra.job.config_name = "config"
            HydraConfig.instance().set_config(whole)  # keeps a copy of Hydra's part
            with open_dict(whole):
                del whole["hydra"]
            return whole

        yield make
    HydraConfig.instance().cfg = held


def composed_of(*words: str, **settings: bool) -> DictConfig:
    """A copy of what Hydra composes of these words, which it does once: it takes a quarter of a second."""
    return copy.deepcopy(composed_once(words, Path.cwd(), **settings))


@functools.cache
def composed_once(words: tuple[str, ...], cwd: Path, **settings: bool) -> DictConfig:  # notes the folder
    return compose("config", overrides=list(words), **settings)
