"""The analyses of rows: r*(ε), β, curves, effects and cost, against numbers worked out by hand."""

import csv
from importlib import import_module

import numpy as np
import pytest

from lottalora.analysis.cost import flops_ratio
from lottalora.analysis.cost import memory_ratio
from lottalora.analysis.least_rank import least_rank
from lottalora.analysis.variance import components
from lottalora.cli.analyse import ANALYSES
from lottalora.cli.main import main
from lottalora.report.analyses import beta as beta_table
from lottalora.report.analyses import budget as budget_table
from lottalora.report.analyses import cost as cost_table
from lottalora.report.analyses import curves as curves_table
from lottalora.report.analyses import effects as effects_table
from lottalora.report.analyses import gating as gating_table
from lottalora.report.analyses import least_rank as least_rank_table
from lottalora.report.analyses import seeds as seeds_table
from lottalora.report.from_rows import blocks_of
from lottalora.report.page.analysis_sections import OF_ROWS
from lottalora.report.page.analysis_sections import OF_WEIGHTS
from lottalora.report.page.analysis_sections import analysis_sections
from lottalora.report.page.section import Shown
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

SEEDS = (42, 43, 44)
FULL = {42: 0.985, 43: 0.985, 44: 0.985}
SCORES = {2: (0.93, 0.94, 0.95), 8: (0.979, 0.981, 0.983), 32: (0.986, 0.984, 0.985)}
ACCOUNT = [
    {"name": "a", "shape": [512, 784], "place": "adapt", "rank": 8, "trained": 1, "frozen": 1, "note": ""},
    {"name": "b", "shape": [900, 10], "place": "adapt", "rank": 8, "trained": 1, "frozen": 1, "note": ""},
]


def sweep():
    full = [make_baseline(seed=seed, score=score) for seed, score in FULL.items()]
    arms = [
        make_row(seed=seed, rank=rank, alpha=float(rank), score=score, arms={}, account=ACCOUNT)
        for rank, scores in SCORES.items()
        for seed, score in zip(SEEDS, scores, strict=True)
    ]
    return full + arms


def history(scores, betas):
    return {
        "epoch": [0.5, *(float(epoch) for epoch in range(1, len(scores) + 1))],
        "step": [1, *range(2, len(scores) + 2)],
        "loss": [1.0] * (len(scores) + 1),
        "validation_score": [None, *scores],
        "learning_rate": [0.1] * (len(scores) + 1),
        **{key: [1.0, *betas] for key in ("beta_min", "beta_q25", "beta_median", "beta_q75", "beta_max")},
    }


def test_least_rank_is_the_first_within_epsilon_in_either_direction():
    scores = {1: 0.90, 2: 0.97, 4: 0.95, 8: 0.98}
    assert least_rank(scores, 0.98, 0.01, higher_is_better=True) == 2
    assert least_rank(scores, 0.98, 0.001, higher_is_better=True) == 8
    assert least_rank({1: 0.5, 2: 0.3}, 0.25, 0.06, higher_is_better=False) == 2
    assert least_rank({1: 0.5}, 0.25, 0.06, higher_is_better=False) is None


def test_r_star_of_the_means_and_of_each_seed():
    found = least_rank_table.analyse(blocks_of(sweep()))
    half, one, two_and_a_half = found.numbers  # ε of 0.5, 1 and 2.5 points
    assert (half["r_star"], half["seed_least"], half["seed_greatest"], half["seeds"]) == (8, 8, 32, 3)
    assert (one["r_star"], one["seed_greatest"]) == (8, 8)
    assert half["d"] == 512 and half["r_star_over_d"] == 8 / 512
    assert half["trained_over_full"] == pytest.approx(21774 / 575050)
    assert two_and_a_half["epsilon"] == pytest.approx(0.025)
    assert found.tables[0].lines[0][3] == "8 … 32 (n = 3)"


def test_r_star_beyond_the_ranks_tried_says_so():
    few = [row for row in sweep() if row["rank"] in (None, 2)]
    (line, *_) = least_rank_table.analyse(blocks_of(few)).tables[0].lines
    assert line[2:5] == ["> 2", "> 2 (n = 3)", "–"]


def test_r_star_is_left_out_where_every_full_training_diverged():
    arms = [row for row in sweep() if row["rank"]]
    other = [row | {"size": "tiny", "digest": row["digest"][::-1]} for row in sweep()]
    lost = [*arms, make_baseline(score=None)]
    found = least_rank_table.analyse(blocks_of([*lost, *other]))
    assert {line["block"].split(", ")[2] for line in found.numbers} == {"tiny"}
    assert found.tables[0].notes[-1].startswith("Left out, since every run of full training diverged: MNIST")
    with pytest.raises(ValueError, match="every run of full training diverged: MNIST, MLP, medium. Make"):
        least_rank_table.analyse(blocks_of(lost))


def test_effects_name_pairs_with_a_diverged_run():
    arm = [
        make_row(seed=seed, arms={"scaffold_removed": 0.9}, score=None if seed == 44 else 0.97)
        for seed in SEEDS
    ]
    (line, *_) = effects_table.analyse(blocks_of(arm)).tables[0].lines
    assert line[3] == "2 (+1 diverged)"


def test_beta_stands_beside_what_decay_alone_makes_of_it():
    runs = [
        make_row(seed=42, beta={"a": 0.5, "b": 0.7, "c": 0.9}, beta_decay=0.96),
        make_row(seed=43, beta={"a": -0.1, "b": 0.7, "c": 1.1}, beta_decay=0.94),
    ]
    (found,) = [line for line in beta_table.analyse(blocks_of(runs)).numbers]
    assert found["median"] == pytest.approx(0.7)
    assert (found["least"], found["greatest"], found["negative"]) == (-0.1, 1.1, 1)
    assert found["decay_alone"] == pytest.approx(0.95)
    assert found["rho_with_depth"] == pytest.approx(1.0)


def test_curves_are_means_over_runs_at_each_epoch():
    runs = [
        make_row(seed=42, epochs=2, history=history([0.5, 0.9], [0.9, 0.8])),
        make_row(seed=43, epochs=2, history=history([0.7, 0.6], [0.9, 0.6])),
        make_row(seed=44, history={}),
    ]
    found = curves_table.analyse(blocks_of(runs))
    assert [(line["epoch"], line["n"]) for line in found.numbers] == [(1, 2), (2, 2)]
    assert [line["validation_score"] for line in found.numbers] == pytest.approx([0.6, 0.75])
    assert found.numbers[1]["beta_median"] == pytest.approx(0.7)
    (line,) = found.tables[0].lines
    assert line[-3:] == ["80.00", "1.5 of 2", "0.700"]  # the best epochs are 2 and 1


def test_effect_of_an_option_is_paired_with_the_scaffold_of_its_rank():
    kaiming = {"config": {"scaffold": {"B_init": "kaiming"}}}
    arm = [
        make_row(seed=seed, rank=8, alpha=8.0, score=score - 0.01, arms={}, **kaiming)
        for seed, score in zip(SEEDS, SCORES[8], strict=True)
    ]
    other = make_row(seed=7, mode="zero", init="", rank=8, alpha=8.0, arms={})
    found = effects_table.analyse(blocks_of([*sweep(), *arm, other]))
    (line,) = found.numbers
    assert (line["adapter"], line["rank"], line["pairs"]) == ("+B_init=kaiming", 8, 3)
    assert line["difference"] == pytest.approx(-0.01)
    assert any("no seed in common" in note for note in found.tables[0].notes)


def test_both_scores_of_an_effect_are_means_over_its_pairs():
    kaiming = {"config": {"scaffold": {"B_init": "kaiming"}}}
    arm = [make_row(seed=seed, rank=8, alpha=8.0, score=score - 0.01, arms={}, **kaiming)
           for seed, score in zip(SEEDS[:2], SCORES[8], strict=False)]  # fmt: skip
    found = effects_table.analyse(blocks_of([*sweep(), *arm]))
    (line,), (table,) = found.numbers, found.tables
    assert line["scaffold"] == pytest.approx(sum(SCORES[8][:2]) / 2)
    assert line["score"] - line["scaffold"] == pytest.approx(line["difference"])
    pairs, scaffold, score = table.lines[0][-7:-4]
    assert pairs == "2"
    assert float(score) - float(scaffold) == pytest.approx(-1)  # per cent


def test_cost_is_the_papers_count():
    assert flops_ratio(600, 0) == pytest.approx(2 / 3)
    assert flops_ratio(600, 600) == 1
    assert memory_ratio(600, 0) == pytest.approx(1 / 8)
    assert memory_ratio(600, 600) == 1
    slow = [make_baseline(seconds=60.0, epochs=20), make_row(seconds=30.0, epochs=20, arms={})]
    full, scaffold = cost_table.analyse(blocks_of(slow)).numbers
    assert (full["flops_ratio"], full["seconds_ratio"]) == (1, 1)
    assert scaffold["seconds_ratio"] == pytest.approx(0.5)
    assert scaffold["shipped_bytes"] == 2 * 21774


def test_variance_components_are_found_again_in_made_scores():
    random = np.random.default_rng(0)
    a, b, e = 3 * random.standard_normal((400, 1)), 2 * random.standard_normal((1, 400)), 1.0
    found = components(a + b + e * random.standard_normal((400, 400)))
    assert (found.scaffold, found.training, found.rest) == pytest.approx((9, 4, 1), rel=0.15)


def test_variance_components_of_a_small_table_by_hand():
    found = components(np.array([[1.0, 2.0], [3.0, 6.0]]))  # MS: scaffold 9, training 4, rest 1
    assert (found.scaffold, found.training, found.rest) == (4.0, 1.5, 1.0)


def test_seeds_are_told_apart_where_they_are_crossed():
    table = {(1, 42): 0.90, (1, 43): 0.91, (2, 42): 0.92, (2, 43): 0.95, (3, 44): 0.5}
    runs = [
        make_row(backbone_seed=one, seed=other, score=score, arms={"scaffold_swapped": 0.1})
        for (one, other), score in table.items()
    ]
    found = seeds_table.analyse(blocks_of(runs))
    (line,) = found.numbers
    assert (line["scaffold_seeds"], line["training_seeds"], line["swapped"]) == (2, 2, pytest.approx(0.1))
    assert found.tables[0].lines[0][3] == "2 × 2"


def gated():
    further = {
        "own.1": 0.98,
        "own.2": 0.97,
        "answers.1.0.3": 0.25,
        "answers.1.0.1": 0.75,
        "answers.2.4.4": 0.97,
    }
    data = {"groups": [[1, 2, 3], [4, 5]], "out_of_class": False}
    return make_row(data="gated_mnist", mode="gated", further=further, arms={}, config={"data": data})


def test_gating_shows_where_every_digit_goes():
    found = gating_table.analyse(blocks_of([gated()]))
    first, second = found.tables
    assert first.lines[0][:6] == ["0", "untrained", "", "75.0", "", "25.0"]
    assert second.lines[4][1] == "own" and second.lines[1][1] == "of others"
    assert "97.0 %" in second.notes[0]


def test_command_writes_figures_of_curves_and_gating(tmp_path):
    for row in (gated(), make_row(epochs=2, history=history([0.5, 0.9], [0.9, 0.8]))):
        rows.write(row, tmp_path)
    for name in ("curves", "gating"):
        assert main(["analyse", name, "--results", str(tmp_path)]) == 0
        folder = tmp_path / "analyses" / name
        assert list(folder.glob("*.svg"))
        assert list(csv.DictReader((folder / f"{name}.csv").open()))


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("rank", "python run.py -m mode=baseline,scaffold"),
        ("curves", "python run.py data=digits"),
        ("effects", "adapter.B_init=zeros,kaiming"),
        ("cost", "mode=baseline,scaffold"),
        ("gating", "python run.py -m sweeps=figure3"),
        ("seeds", "sweeps=seeds"),
    ],
)
def test_analysis_without_its_rows_names_the_command_that_makes_them(name, command, tmp_path, capsys):
    rows.write(make_baseline(), tmp_path)
    assert main(["analyse", name, "--results", str(tmp_path)]) == 1
    assert command in capsys.readouterr().err


def test_arms_are_ordered_by_all_that_they_train_and_other_families_are_left_out():
    counts = {"trainable": 900, "internal_trainable": 100, "full": 575050, "full_plus_adapters": 590000}
    small = [row | {"counts": counts, "rank": 1} for row in sweep() if row["rank"] == 2]
    found = budget_table.analyse(blocks_of([*sweep(), *small, make_row(init="binary")]))
    assert [line["trained"] for line in found.numbers] == [900, 21774, 21774, 21774, 575050]
    first, last = found.tables[0].lines[0], found.tables[0].lines[-1]
    assert first[4:6] == ["900", "100"] and last[0] == "full training"


def test_every_analysis_of_rows_has_tables_numbers_a_figure_and_a_place_on_the_page(tmp_path):
    made = [
        row | {"history": history([0.5, 0.9], [0.8, 0.7]), "epochs": 2, "beta": {"a": 0.9}} for row in sweep()
    ]
    made += [make_row(seed=seed, backbone_seed=scaffold, score=0.9 + seed / 1e3 + scaffold / 1e4)
             for seed in (42, 43) for scaffold in (1, 2)]  # fmt: skip
    blocks = blocks_of(made)
    for name in ("statistics", "rank", "beta", "curves", "effects", "budget", "cost", "seeds"):
        module = import_module(ANALYSES[name][0])
        if name == "effects":
            blocks = blocks_of([*made, *(row | {"mode": "zero", "init": ""} for row in made if row["rank"])])
        found = module.analyse(blocks)
        assert found.tables and found.numbers, name
        assert [picture.numbers.count("\n") > 1 for picture in module.pictures(blocks, found)], name
    (section,) = analysis_sections(Shown(blocks, {}))
    assert [part.title for part in section.parts] == [OF_ROWS[name] for name in OF_ROWS if name != "gating"]
    assert all(part.pictures and part.tables for part in section.parts)
    assert ANALYSES.keys() == OF_ROWS.keys() | OF_WEIGHTS.keys() | {"statistics", "beta", "cost"}
