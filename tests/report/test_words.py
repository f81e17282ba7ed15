"""Tables and legends say in words what rows say by keys."""

import re
from pathlib import Path

import pytest

from lottalora.report.from_rows import blocks_of
from lottalora.report.words import SETTINGS
from lottalora.report.words import adapter_words
from lottalora.report.words import changes_words
from lottalora.report.words import options_words
from lottalora.report.words import scaffold_words
from lottalora.results import rows
from lottalora.results.schema import DIGEST_DEFAULTS

ROOT = Path(__file__).parents[2]
# KEY=VALUE, a name with underscores, a list, a dotted key, a value of Python
RAW = re.compile(r"\w=\w|_|\[|\.\w|\b(None|True|False)\b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", ""),
        ("place=body_and_head", "adapted head"),
        ("alpha=2, train_beta=False", "α = 2, β fixed at 1"),
        ("keep=['head', 'norm.*'], freeze=['*.ffn']", "other layers dense, frozen: ffn"),
        (
            "keep=['head', 'norm.*'], freeze=['*patch_embeddings*']",
            "other layers dense, frozen: patch embeddings",
        ),
        ("keep=['head', 'norm.*'], freeze=[]", "other layers dense, no layer frozen"),
        ("keep=[], freeze=['a', '*.b']", "no layer dense, other layers frozen"),
        ("scaling=literal, some_new.option_name=3", "unscaled, option name = 3"),
        ("trainable=21774", "21,774 trained"),
    ],
)
def test_options_are_named_one_by_one_and_a_list_is_one(options, words):
    assert options_words(options) == words


def test_adapters_scaffolds_and_recipes_have_their_proper_names():
    assert adapter_words("+dora+B_init=kaiming") == ["DoRA", "B drawn by Kaiming"]
    assert [scaffold_words(init) for init in ("", "normal_0.1", "a_b")] == ["", "N(0, 0.1²)", "a b"]
    assert changes_words({"epochs": 3, "optimizer.lr": 0.01}) == "3 epochs, learning rate 0.01"


def test_no_title_and_no_arm_of_the_committed_rows_shows_a_key():
    blocks = blocks_of(rows.read_all(ROOT / "results")[0])
    arms = {text for block in blocks for line in block.lines for text in (line.label, line.scaffold_text)}
    recipes = {block.recipe_text.partition(": ")[2] for block in blocks}
    assert len(arms) > 20 and len(recipes) > 5
    assert [text for text in arms | recipes if RAW.search(re.sub(r"\d\.\d|fan_in|W_seed", "", text))] == []


def test_every_setting_that_a_digest_may_hold_has_words():
    prefixes = {"data": "data.", "scaffold": "", "trainer": "steps."}
    settings = [prefix + key for part, prefix in prefixes.items() for key in DIGEST_DEFAULTS[part]]
    named = {key.partition("=")[0] for key in SETTINGS}
    assert set(settings) - named == set()
