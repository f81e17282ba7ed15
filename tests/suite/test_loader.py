"""Configs that are composed with the memory are Hydra's own, and so are the words of its errors."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lottalora.config import loader
from tests.composing import hydras_own_loader

CONF = Path(__file__).resolve().parents[2] / "conf"
LINES = (
    "model=decision_transformer data=halfcheetah",  # its recipe changes `adapter` of config.yaml
    "",
    "data=digits rank=4 seed=7 trainer.epochs=2 +trainer.new=[1,2] ~save.zstandard",
    "model=resnet data=cifar10 model.depth=20 init=binary",
    "model=gpt data=wikitext2 model.place=all",
    "data=digits rank= recipe=nothing",
    "sweeps=table14 hydra/launcher=basic",
)
WRONG = (
    "model=mpl",
    "rnak=3",
    "rank=1,2",
    "model.size.x=3",
    "+rank=3",
    "model/net=nothing",
    "hydra/launcher=nothing",
)


@pytest.fixture
def ours(monkeypatch):
    """What is composed with a memory that is empty at first."""
    monkeypatch.setattr(loader.Loader, "merged", {})
    monkeypatch.setattr(loader.Repository, "read", {})
    return lambda line, conf=CONF: composed_in(conf, line)


def hydras_own(line):
    with hydras_own_loader():
        return composed_in(CONF, line)


def composed_in(conf, line):
    """The whole config with its flags, or the type and the words of the error, and of what caused it."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            cfg = compose("config", overrides=line.split(), return_hydra_config=True)
        except HydraException as error:
            return type(error), str(error), str(error.__cause__)
    return OmegaConf.to_yaml(cfg), OmegaConf.is_struct(cfg), OmegaConf.is_readonly(cfg.hydra)


def test_configs_are_those_that_hydra_composes(ours):
    first = [ours(line) for line in LINES]
    again = [ours(line) for line in LINES]
    assert first == again == [hydras_own(line) for line in LINES]
    assert len(set(first)) == len(LINES)


def test_what_hydra_refuses_is_refused_in_its_words(ours):
    first = [ours(line) for line in WRONG]
    again = [ours(line) for line in WRONG]
    assert first == again == [hydras_own(line) for line in WRONG]
    assert all(issubclass(kind, HydraException) for kind, *_ in first)


def test_a_file_that_was_read_is_not_read_again_until_it_changes(ours, tmp_path, monkeypatch):
    conf = shutil.copytree(CONF, tmp_path / "conf")
    assert "\nrank: 8\n" in ours("", conf)[0]
    with monkeypatch.context() as patch:
        patch.setattr(OmegaConf, "load", None)
        assert "\nrank: 4\n" in ours("rank=4", conf)[0]
    file = conf / "config.yaml"
    file.write_text(file.read_text().replace("rank: 8 ", "rank: 9 "))
    os.utime(file, ns=(1, 1))
    assert "\nrank: 9\n" in ours("", conf)[0]


def test_a_changed_config_changes_no_other(ours):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        first, second = compose("config"), compose("config")
        first.save.precision = "int4"
        first.model.sizes.tiny = None
        assert compose("config") == second != first


@dataclass
class Imported:
    number: int = 1


def test_a_config_with_a_class_that_was_imported_twice_is_copied(monkeypatch):
    config = OmegaConf.structured(Imported)
    monkeypatch.setattr(f"{__name__}.Imported", None)  # as by Hydra in a job of submitit
    copied = loader.copier(config)()
    copied.number = 2
    assert (config.number, copied.number) == (1, 2)


def test_the_last_merged_configs_are_kept(ours, monkeypatch):
    monkeypatch.setattr(loader, "MOST", 2)
    for line in ("rank=1", "rank=2", "init=binary", "init=cauchy", "init=normal"):
        ours(line)
    paths = [path for key in loader.Loader.merged for _, path, *_ in key]
    assert [path for path in paths if path.startswith("init/")] == ["init/cauchy", "init/normal"]
