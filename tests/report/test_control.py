"""The control of equal budget at the top of the report, whichever way it falls."""

import pytest

from lottalora.report.from_rows import blocks_of
from lottalora.report.page.control_sections import control_said
from lottalora.report.page.control_sections import control_sections
from lottalora.report.page.section import Shown
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


def rows_of(scaffold: list[float], narrow: list[float], rank: int = 8) -> list[dict]:
    same = {"rank": rank, "arms": {}}
    rows = [make_row(seed=seed, score=score, **same) for seed, score in enumerate(scaffold)]
    small = {"mode": "small", "init": "", "alpha": None, "backbone_seed": None, **same}
    return rows + [make_row(seed=seed, score=score, **small) for seed, score in enumerate(narrow)]


@pytest.mark.parametrize(
    ("scaffold", "narrow", "said", "ahead"),
    [
        ([0.97], [0.95], "the scaffold is ahead of the narrow net, 97.00 against 95.00 % (n = 1, too few", 0),
        ([0.95], [0.97], "the narrow net is ahead of the scaffold, 95.00 against 97.00 % (n = 1, too few", 1),
        ([0.95, 0.951, 0.952], [0.97, 0.972, 0.971], "the narrow net is ahead of the scaffold", 2),
        ([0.95, 0.97, 0.96], [0.97, 0.95, 0.961], "scaffold and narrow net are not told apart", 3),
    ],
)
def test_the_control_is_told_whichever_way_it_falls(scaffold, narrow, said, ahead):
    blocks = blocks_of([make_baseline(), *rows_of(scaffold, narrow)])
    assert f"at r = 8 {said}" in control_said(blocks)[0]
    (section,) = control_sections(Shown(blocks, {}))
    words = ["scaffold, untested", "narrow net, untested", "narrow net", "undecided"]
    assert section.tables[0].lines[1][-1] == words[ahead]


def test_seeds_that_only_one_arm_has_do_not_count():
    blocks = blocks_of([make_baseline(), *rows_of([0.97, 0.10], [0.95])])
    assert "97.00 against 95.00 % (n = 1" in control_said(blocks)[0]


def test_a_control_that_was_not_run_names_its_command():
    mnist, missing, physionet = control_said(blocks_of([make_baseline(), *rows_of([0.97], [0.95])]))
    assert mnist.startswith("MNIST, MLP: at r = 8")
    command = "python run.py -m model=mlp data=mnist mode=scaffold,small rank=1 seed=42,43"
    assert missing == f"MNIST, MLP: not run at r = 1. To run it: `{command}`"
    assert "model=cfc data=physionet2012 mode=scaffold,small rank=1,8 seed=42,100" in physionet


def test_another_recipe_or_size_is_no_control():
    rows = [row | {"recipe": "short"} for row in rows_of([0.97], [0.95])]
    small = [row | {"size": "tiny"} for row in rows_of([0.97], [0.95])]
    for made in (rows, small):
        assert all("not run" in said for said in control_said(blocks_of(made)))
