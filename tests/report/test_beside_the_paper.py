"""What may stand beside the paper's number, and what is said of rows that differ from its protocol."""

from pathlib import Path

import pytest

from lottalora.report.from_rows import blocks_of
from lottalora.report.tables import notes
from tests.rows.factory import make_baseline

RECIPES = Path(__file__).parents[2] / "conf" / "recipe"
CHEETAH = {"model": "decision_transformer", "data": "halfcheetah", "size": "small", "metric": "mse"}


@pytest.mark.parametrize(
    ("data", "stands"),
    [
        ({"source": "d4rl", "id": None}, True),
        ({"source": "d4rl", "id": "halfcheetah-expert-v2"}, True),
        ({"source": "d4rl", "id": "halfcheetah-medium-v2"}, False),
        ({"source": "minari", "id": None}, False),
        ({"source": "minari", "id": "mujoco/halfcheetah/tqc-expert-v0"}, False),
    ],
)
def test_halfcheetah_stands_beside_the_paper_with_its_data_set_only(data, stands):
    row = make_baseline(**CHEETAH, higher_is_better=False, score=0.03, config={"data": data})
    (block,) = blocks_of([row])
    assert (block.lines[0].paper is not None) == stands
    assert (block.stand_in == "") == stands


def test_the_data_set_that_stands_in_is_named():
    data = {"source": "minari", "id": "mujoco/halfcheetah/tqc-expert-v0"}
    row = make_baseline(**CHEETAH, higher_is_better=False, score=0.03, config={"data": data})
    (block,) = blocks_of([row])
    assert "(minari's tqc-expert-v0 episodes)" in block.title


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("cifar10", "Trained on 45,000 of 50,000 images"),
        ("imdb", "Trained on 22,500 of 25,000 reviews"),
        ("flowers102", "Trained on 1,836 of 2,040 images"),
    ],
)
def test_a_table_says_where_a_tenth_is_held_out_and_where_it_is_not(data, said):
    (block,) = blocks_of([make_baseline(data=data)])
    assert said in " ".join(notes(block))
    (block,) = blocks_of([make_baseline(data=data, config={"data": {"hold_out": False}})])
    assert "All training examples are trained on, and the last epoch counts." in notes(block)
    (block,) = blocks_of([make_baseline(data=data, sample=True)])
    assert not block.held_out


def test_every_recipe_of_the_paper_says_what_is_our_reading_before_its_commands():
    recipes = [path for path in sorted(RECIPES.glob("*.yaml")) if "\n# Paper, " in path.read_text()]
    assert len(recipes) == 11
    for path in recipes:
        header = path.read_text().partition("# python run.py")[0]
        assert "\n# Our reading: " in header, path.name
