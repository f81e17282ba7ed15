"""`python run.py --help`: the page says what the files of conf/ say."""

import pytest
import yaml

from lottalora.cli.manual import first_sentence
from lottalora.cli.manual import knobs_of
from lottalora.cli.manual import manual
from tests.suite.conftest import ROOT

CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def page():
    return manual(CONF)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (CONF / "recipe").glob("*.yaml")))
def test_each_benchmark_has_a_command_with_its_model_and_data(page, recipe):
    models = [path.stem for path in (CONF / "model").glob("*.yaml") if recipe.startswith(f"{path.stem}_")]
    pairs = [{f"model={name}", f"data={recipe.removeprefix(f'{name}_')}"} for name in models]
    commands = [line for line in page.splitlines() if line.startswith("  python run.py model=")]
    assert any(pair <= set(line.split()) for pair in pairs for line in commands)


def test_each_sweep_has_its_command(page):
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert f"python run.py -m sweeps={path.stem}" in page


def test_default_of_every_top_level_knob_is_the_one_of_the_file(page):
    config = yaml.safe_load((CONF / "config.yaml").read_text())
    plain = [key for key, value in config.items() if not isinstance(value, dict | list)]
    assert len(plain) > 5
    for key in plain:
        value = {True: "true", False: "false", None: "null"}.get(config[key], config[key])
        assert f"  {key}={value} " in page, key


def test_protocol_of_the_paper_stands_beside_its_benchmark(page):
    mnist = page[page.index("model=mlp data=mnist") :]
    assert "data.batch_size=128" in mnist[:900]
    assert "optimizer.weight_decay=0.01" in mnist[:900]
    assert "model.size: medium (default), tiny, small, large" in mnist[:900]


def test_inherited_sizes_are_named_and_a_greek_letter_stays_small(page):
    from_random = page[page.index("model=vit_random data=flowers102") :]
    assert "model.size: base (default), tiny, small, dinov2_s" in from_random[:900]
    assert "β with and without weight decay" in page


def test_knob_is_read_with_its_path_and_without_hydras_own(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: 1  # one\nb:   # more\n  c: [1, 2]   # two\n  d: 3\nhydra:\n  e: 4  # none\n")
    assert list(knobs_of(path)) == [("a", "1", "one"), ("b.c", "[1, 2]", "two")]


def test_first_sentence_does_not_end_at_an_abbreviation():
    assert first_sentence("Of Chen et al. 2021, small. More.") == "Of Chen et al. 2021, small"
