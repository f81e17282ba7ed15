"""The files of conf/, and what identifies a run."""

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lottalora.cli.run import composed_once
from lottalora.cli.run import mode_is_by_flag
from lottalora.config.identity import changes
from lottalora.config.identity import digest
from lottalora.config.identity import identify
from lottalora.scaffold import FAMILIES
from tests.suite.conftest import ROOT

CONF = ROOT / "conf"
INITS = sorted(path.stem for path in (CONF / "init").glob("*.yaml"))


def test_there_is_one_init_for_each_family_and_one_for_the_mnist_tables():
    assert set(INITS) == set(FAMILIES) - {"zeros"} | {"normal_0.1"}
    assert len(INITS) == 24


@pytest.mark.parametrize("name", INITS)
def test_an_init_holds_every_parameter_of_its_family_at_the_papers_value(name):
    init = OmegaConf.to_container(OmegaConf.load(CONF / "init" / f"{name}.yaml"))
    family = FAMILIES[init["family"]]
    assert init["parameters"].keys() == family.defaults.keys()
    if name != "normal_0.1":
        assert init["family"] == name
        assert init["parameters"] == pytest.approx(family.defaults)


def test_the_default_scaffold_of_the_mlp_is_normal_with_a_standard_deviation_of_a_tenth(composed):
    scaffold = composed("model=mlp").scaffold
    assert scaffold.family == "normal"
    assert scaffold.parameters == {"std": 0.1, "fan_in": False}


def test_every_recipe_is_named_after_a_model_and_a_data_set_that_exist():
    recipes = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
    models, data = (sorted((CONF / group).glob("*.yaml")) for group in ("model", "data"))
    pairs = {f"{one.stem}_{other.stem}" for one in models for other in data}
    assert {"cfc_physionet2012", "mlp_digits", "mlp_mnist"} <= set(recipes) <= pairs


def test_a_package_line_is_the_first_of_its_file():
    places = {
        path: [i for i, line in enumerate(path.read_text().splitlines()) if line.startswith("# @package")]
        for path in CONF.rglob("*.yaml")
    }
    assert all(lines in ([], [0]) for lines in places.values())
    needing = [path for path in places if path.parent.name in ("mode", "recipe", "sweeps")]
    assert len(needing) > 7
    assert all(places[path] == [0] for path in needing)


def test_the_recipe_of_mnist_is_the_papers_protocol(composed):
    cfg = composed("data=mnist")
    assert cfg.recipe.name == "paper"
    assert cfg.trainer.epochs == cfg.schedule.T_max == 20
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.data.batch_size) == (1e-3, 1e-2, 128)
    assert cfg.model.net.dropout == 0.1
    assert cfg.alpha is None


def test_the_digest_of_a_run_does_not_change_between_versions(composed):
    assert digest(composed("data=mnist", "rank=8")) == "643a6696acb3"
    assert digest(composed("data=mnist", "mode=baseline")) == "ddea35e6838d"


@pytest.mark.parametrize("word", ["rank=4", "alpha=3", "init=binary", "backbone_seed=7"])
def test_a_baseline_is_one_run_whatever_the_scaffold_would_be(composed, word):
    assert digest(composed("mode=baseline", word)) == digest(composed("mode=baseline"))
    assert digest(composed(word)) != digest(composed())


@pytest.mark.parametrize(
    "word",
    [
        "force=true",
        "dry_run=true",
        "paths.results=x",
        "paths.data=x",
        "trainer.threads=2",
        "trainer.devices=2",
        "trainer.strategy=fsdp",
        "recipe_name=x",
    ],
)
def test_what_cannot_change_the_score_is_not_in_the_digest(composed, word):
    assert digest(composed(word)) == digest(composed())


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "model.size=tiny",
        "data=digits",
        "data.sample=true",
        "mode=zero",
        "mode=head",
        "optimizer.lr=0.01",
        "trainer.epochs=3",
        "data.batch_size=64",
        "model.net.dropout=0",
        "init.parameters.std=0.2",
        "model.keep=[]",
        "recipe.version=2",
    ],
)
def test_what_can_change_the_score_is_in_the_digest(composed, word):
    assert digest(composed(word)) != digest(composed())


@pytest.mark.parametrize(
    "word", ["rank=2", "seed=7", "model.size=tiny", "init=binary", "mode=baseline", "force=true"]
)
def test_choosing_a_run_leaves_the_recipe_the_papers(typed, word):
    assert identify(typed("data=mnist", word))["recipe"] == "paper"


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("trainer.epochs=3", {"epochs": 3, "schedule.T_max": 3}),
        ("optimizer.lr=0.01", {"optimizer.lr": 0.01}),
        ("alpha=4", {"scaffold.alpha": 4}),
        ("init.parameters.std=0.2", {"scaffold.parameters.std": 0.2}),
        ("data.sample=true", {"data.sample": True}),
    ],
)
def test_a_changed_recipe_is_no_longer_the_papers_and_says_what_was_changed(typed, word, changed):
    cfg = typed("data=mnist", word)
    assert identify(cfg)["recipe"] == "modified"
    assert changes(cfg) == changed


def test_an_alpha_as_large_as_the_rank_changes_nothing_where_none_is_asked_for(typed):
    assert changes(typed("data=mnist", "rank=4", "alpha=4")) == {}
    assert changes(typed("data=mnist", "rank=4", "alpha=2")) == {"scaffold.alpha": 2}
    asked = typed("model=gpt", "data=wikitext103", "model.size=3M", "rank=4", "alpha=4")  # α = 16 there
    assert changes(asked) == {"scaffold.alpha": 4}


def test_a_changed_recipe_bears_the_name_that_is_typed(typed):
    assert identify(typed("data=mnist", "trainer.epochs=3", "recipe_name=short"))["recipe"] == "short"


def test_an_alpha_that_equals_the_rank_is_the_same_run_as_none(typed):
    untyped, equal, other = (digest(typed("rank=4", *words)) for words in ((), ("alpha=4",), ("alpha=2",)))
    assert untyped == equal != other


def test_a_baseline_has_no_rank_alpha_init_or_backbone_seed(typed):
    identity = identify(typed("mode=baseline", "rank=4"))
    assert (identity["rank"], identity["alpha"], identity["init"], identity["backbone_seed"]) == (
        None,
        None,
        "",
        None,
    )


def test_alpha_is_the_rank_unless_it_is_typed(typed):
    assert identify(typed("rank=4"))["alpha"] == 4
    assert identify(typed("rank=4", "alpha=1"))["alpha"] == 1


def test_hydra_looks_for_the_mode_again_after_a_run_that_failed():
    before = Hydra.get_mode
    with pytest.raises(ValueError, match="of a run"), composed_once():
        assert Hydra.get_mode is not before
        raise ValueError("of a run")
    assert Hydra.get_mode is before


def test_no_file_of_conf_sets_the_mode_that_run_py_takes_from_the_flags_alone(typed):
    typed("model=mlp", "data=mnist")
    assert HydraConfig.get().mode is None
    assert mode_is_by_flag(["-m", "sweeps=digits"]) and mode_is_by_flag(["rank=2", "mode=zero"])
    assert not mode_is_by_flag(["hydra.mode=MULTIRUN"]) and not mode_is_by_flag(["-cn", "other"])
