"""Cells: unique, fast, the same config as Hydra's, for every sweep file."""

import re
import time
from pathlib import Path

import pytest
from hydra import compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf import base
from omegaconf import open_dict

from lottalora import build
from lottalora.config.grids import words_of
from lottalora.config.identity import digest
from lottalora.sweeps.cells import Composer
from lottalora.sweeps.cells import cells_of_overrides
from lottalora.sweeps.plan import plan
from lottalora.sweeps.progress import sweep_state
from tests.composing import hydras_own_loader

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
NAMES = sorted(path.stem for path in CONF.glob("sweeps/*.yaml"))


@pytest.fixture
def cells():
    """The cells of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: cells_of_overrides(overrides)[0]


@pytest.mark.slow
def test_each_sweep_has_the_runs_that_its_header_states_and_the_docs_say_how_many_are_done(cells):
    page = (ROOT / "docs" / "evidence.md").read_text()
    stated, given, told, done = {}, {}, {}, {}
    for name in NAMES:
        header = (CONF / "sweeps" / f"{name}.yaml").read_text().split("hydra:")[0]
        found = cells(f"sweeps={name}")
        stated[name] = re.search(r"([\d,]+) runs", header)[1]
        given[name] = f"{len(found):,}"
        assert [cell.problem for cell in found if cell.problem] == []
        told[name] = re.search(rf"\| {name} \| ([\d,]+) \| ([\d,]+) \|", page).groups()
        done[name] = given[name], f"{len(sweep_state(found, ROOT / 'results').done):,}"
    assert given == stated
    assert told == done, "stale. Run: python -m lottalora plan --docs"


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_file_sets_grids_and_nothing_that_a_run_would_read(name):
    plain = OmegaConf.to_container(OmegaConf.load(CONF / "sweeps" / f"{name}.yaml"))
    assert plain.keys() == {"hydra"}
    assert plain["hydra"].keys() == {"sweeper"}
    assert plain["hydra"]["sweeper"].keys() == {"grids"}


def test_a_baseline_beside_three_ranks_is_one_cell(cells):
    found = cells("data=digits", "mode=baseline,scaffold", "rank=1,2,4")
    assert [cell.identity["mode"] for cell in found] == ["baseline", "scaffold", "scaffold", "scaffold"]


def test_typed_words_replace_the_same_key_of_each_grid(cells):
    found = cells("sweeps=digits", "seed=7", "model.size=tiny")
    assert {(cell.identity["seed"], cell.identity["size"]) for cell in found} == {(7, "tiny")}
    assert len(found) == 5


@pytest.mark.parametrize(
    "axis",
    ["paths.results=a,b", "paths.data=a,b", "force=true,false", "dry_run=true,false", "ensemble=true,false"],
)
def test_what_holds_for_a_whole_sweep_is_no_axis(cells, axis):
    with pytest.raises(ValueError, match=f"{axis!r} names several values, and .* has one for all runs"):
        cells("data=digits", axis)
    cells("data=digits", "paths.results='a,b'", "force=true")


@pytest.mark.parametrize("word", ["fail_fast=flase", "fail_fast=no", "force=flase", "ensemble=1"])
def test_a_setting_of_the_whole_sweep_is_checked_before_any_run(cells, word):
    with pytest.raises(ValueError, match=f"{word.partition('=')[0]} must be true or false, got "):
        cells("data=digits", word)


def test_a_grid_that_holds_what_is_of_the_whole_sweep_is_refused(cells):
    with pytest.raises(ValueError, match=r"grids of a sweep hold force, .* Type force=VALUE"):
        cells("hydra.sweeper.grids=[{data:digits,force:true}]")


@pytest.mark.parametrize("grids", ["{rank:1}", "word", "[rank]", "[[1]]"])
def test_grids_that_are_no_list_of_grids_are_refused_in_one_line(cells, grids):
    with pytest.raises(
        ValueError, match=r"hydra\.sweeper\.grids must be a list of grids, got .* Write grids:"
    ):
        cells("data=digits", f"hydra.sweeper.grids={grids}")


def test_values_of_a_grid_are_what_yaml_reads():
    grid = OmegaConf.create(
        {"trainer.patience": None, "rank": "1,2", "adapter": {"dora": True}, "alpha": 0.5}
    )
    assert words_of(grid) == ["trainer.patience=null", "rank=1,2", "adapter={dora:true}", "alpha=0.5"]


def test_omegaconf_is_as_before_after_cells_were_composed(cells, monkeypatch):
    before = base.parse
    monkeypatch.setattr("lottalora.sweeps.cells.check", lambda *_, **__: used.append(base.parse))
    used = []
    cells("data=mnist")
    assert used and base.parse is before and used[0] is not before


def test_a_cell_has_the_digest_of_the_config_that_hydra_composes(cells):
    words = ["data=mnist", "mode=baseline,zero,head,scaffold", "seed=3", "trainer.epochs=2", "alpha=5"]
    loader = GlobalHydra.instance().hydra.config_loader
    for cell in cells(*words):
        whole = GlobalHydra.instance().hydra.compose_config("config", list(cell.overrides), run_mode=None)
        HydraConfig.instance().set_config(whole)
        with open_dict(whole):
            del whole["hydra"]
        assert cell.digest == digest(whole), (loader, cell.overrides)


@pytest.mark.parametrize("name", ["digits", "figure3", "seeds", "table23"])
def test_cells_that_differ_in_their_seed_are_those_that_are_composed_one_by_one(cells, name):
    initialised = GlobalHydra.instance().hydra
    master = initialised.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    composer = Composer(initialised.config_loader, master, jobs=True)
    found = cells(f"sweeps={name}")[:20]
    assert len({cell.identity["seed"] for cell in found}) > 1 or name == "figure3"
    assert found == [composer.composed_cell(cell.overrides) for cell in found]


@pytest.mark.parametrize("mode", ["scaffold", "baseline"])
def test_cells_that_differ_in_their_init_are_those_that_are_composed_one_by_one(cells, mode):
    initialised = GlobalHydra.instance().hydra
    master = initialised.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    composer = Composer(initialised.config_loader, master, jobs=True)
    found = cells("data=mnist", f"mode={mode}", "init=normal,binary,cauchy,kaiming_normal", "seed=3,4")
    assert len(found) == (8 if mode == "scaffold" else 2)  # full training has no init
    assert found == [composer.composed_cell(cell.overrides) for cell in found]


def test_a_typed_parameter_of_the_init_holds_for_every_init(cells):
    found = cells("data=mnist", "init=normal,truncated_normal,normal_0.1", "init.parameters.fan_in=true")
    assert [cell.plain["scaffold"]["parameters"]["fan_in"] for cell in found] == [True] * 3


def test_cells_that_differ_in_init_and_rank_are_those_that_are_composed_one_by_one(cells):
    initialised = GlobalHydra.instance().hydra
    master = initialised.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    composer = Composer(initialised.config_loader, master, jobs=True)
    found = cells("data=mnist", "init=normal,binary,cauchy", "rank=2,-1,4")
    assert [cell.problem is None for cell in found] == 3 * [True, False, True]
    assert found == [composer.composed_cell(cell.overrides) for cell in found]


def test_a_plan_of_all_families_composes_and_builds_one_net_for_each_rank(monkeypatch, tmp_path):
    composed, built, configs = [], [], []
    compose_cell, account_of, config_of = Composer.composed_cell, build.account_of, Composer.config
    monkeypatch.setattr(
        Composer, "config", lambda self, words: configs.append(words) or config_of(self, words)
    )
    monkeypatch.setattr(
        Composer, "composed_cell", lambda self, words: composed.append(words) or compose_cell(self, words)
    )
    monkeypatch.setattr(build, "account_of", lambda cfg: built.append(cfg) or account_of(cfg))
    assert plan(["sweeps=table3", "model.size=tiny", f"paths.results={tmp_path}"])["runs"] == 335
    assert len(composed) == 1 + 3 + 1  # full training, a family at each of three ranks, another at the first
    assert len(built) == 1 + 3
    assert len(configs) == len(composed) + len(built)


def test_a_seed_that_hydra_reads_as_text_is_noted_as_when_it_runs_alone(cells):
    (cell,) = cells("data=digits", "seed=007")
    assert cell.problem == "seed must be a whole number, 0 or more, got '007'."


def test_a_value_that_is_not_allowed_is_noted_on_its_cell_alone(cells):
    good, bad = cells("data=digits", "rank=1,-1")
    assert good.problem is None
    assert bad.problem == "rank must be a whole number, 0 or more, got -1."


@pytest.mark.parametrize("word", ["rank=", "seed=range(5,5)"])
def test_an_empty_axis_is_refused(cells, word):
    with pytest.raises(ValueError, match="is an axis without a value"):
        cells("data=digits", word)


def test_an_unknown_sweep_is_refused(cells):
    with pytest.raises(MissingConfigException):
        cells("sweeps=tabel14")


def test_a_cell_takes_a_small_part_of_what_hydra_takes_to_compose_it(cells):
    cells("data=digits", "rank=1")
    begin = time.process_time()
    found = cells("data=digits", "rank=range(1,51)")
    ours = (time.process_time() - begin) / len(found)
    GlobalHydra.instance().clear()
    with hydras_own_loader(), initialize_config_dir(str(CONF), version_base="1.3"):
        begin = time.process_time()
        for rank in range(1, 6):
            compose("config", overrides=["data=digits", f"rank={rank}"])
    assert ours < (time.process_time() - begin) / 5 / 2


def test_several_sweeps_are_the_union_of_their_cells(cells):
    both = {cell.digest for cell in cells("sweeps=digits,table14", "seed=42")}
    alone = [{cell.digest for cell in cells(f"sweeps={name}", "seed=42")} for name in ("digits", "table14")]
    assert both == alone[0] | alone[1]
    assert len(both) == len(alone[0]) + len(alone[1]) > 0
