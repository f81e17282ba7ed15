import csv
import io
import math

import pytest

from lottalora.report.from_rows import blocks_of
from lottalora.report.grouping import row_options
from lottalora.report.pictures.beta import arms_of
from lottalora.report.tables import notes
from lottalora.report.tables import recovery_csv
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


def lines_of(rows, condition="scaffold"):
    return [line for block in blocks_of(rows) for line in block.lines if line.condition == condition]


def test_line_is_the_mean_over_seeds_beside_the_baseline():
    rows = [make_row(seed=1, score=0.8), make_row(seed=2, score=0.9), make_baseline(score=0.95)]
    (line,) = lines_of(rows)
    assert (line.scores.n, line.scores.mean) == (2, pytest.approx(0.85))
    assert line.recovery == pytest.approx(0.85 / 0.95)
    assert line.share_above_chance == pytest.approx(0.75 / 0.85)


def test_lower_is_better_is_read_from_the_rows():
    loss = {"metric": "loss", "higher_is_better": False, "chance": 8.0}
    (line,) = lines_of([make_row(score=4.0, **loss), make_baseline(score=2.0, **loss)])
    assert line.recovery == 0.5
    assert line.share_above_chance == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "short"},
        {"recipe": "modified", "changed": {"optimizer.lr": 0.01}},
        {"sample": True},
        {"data_fingerprint": "other"},
        {"size": "tiny"},
        {"counts": {"trainable": 1, "internal_trainable": 1, "full": 2, "full_plus_adapters": 3}},
    ],
)
def test_rows_that_may_not_be_compared_stand_in_two_blocks(other):
    blocks = blocks_of([make_row(seed=1), make_row(seed=2, **other), make_baseline()])
    assert len(blocks) == 2
    assert all(line.scores.n == 1 for block in blocks for line in block.lines)


def test_modified_rows_share_a_block_only_with_the_same_changes():
    changes = [{"optimizer.lr": 0.01}, {"optimizer.lr": 0.1}, {"optimizer.lr": 0.1}]
    rows = [make_row(seed=seed, recipe="modified", changed=changed) for seed, changed in enumerate(changes)]
    assert sorted(line.scores.n for line in lines_of(rows)) == [1, 2]


def config_of(lr=1e-3, version=1, epochs=20, **others):
    """A whole config, as a real row holds it."""
    model = {
        "size": "medium",
        "sizes": {"medium": {"hidden": [64]}},
        "net": {"dropout": 0.1},
        "keep": ["head"],
    }
    return {
        "model": model | {"freeze": []},
        "data": {"batch_size": 128},
        "task": {"_target_": "task"},
        "optimizer": {"lr": lr},
        "schedule": {"T_max": epochs},
        "recipe": {"name": "paper", "version": version},
        "trainer": {"epochs": epochs},
        "scaffold": {"family": "normal", "parameters": {"std": 0.1}},
        "init": {"family": "normal", "parameters": {"std": 0.1}},
    } | others


@pytest.mark.parametrize("edited", [{"lr": 1e-4}, {"version": 2}])
def test_a_recipe_that_was_edited_has_a_block_of_its_own_though_its_rows_changed_nothing(edited):
    rows = [make_row(seed=seed, config=config_of()) for seed in (1, 2)]
    rows += [make_baseline(config=config_of(scaffold=None)), make_row(seed=3, config=config_of(**edited))]
    blocks = blocks_of(rows)
    assert sorted(len(line.runs) for block in blocks for line in block.lines if line.rank) == [1, 1, 2, 2]
    alone = next(block for block in blocks if block.baseline is None)
    assert math.isnan(alone.lines[0].recovery)
    assert len({block.title for block in blocks}) == 2
    assert ("version 2" if "version" in edited else "learning rate 0.0001") in alone.title


def test_a_run_is_measured_by_the_full_training_of_its_length():
    short, long = (config_of(epochs=epochs) for epochs in (20, 40))
    rows = [
        make_row(config=short, score=0.4),
        make_baseline(config=short | {"scaffold": None}, score=0.5),
        make_baseline(config=long | {"scaffold": None}, score=0.8),
        make_row(rank=4, config=config_of(epochs=30), score=0.4),
    ]
    found = {line.rank: line.recovery for line in lines_of(rows)}
    assert found[8] == pytest.approx(0.8)
    assert math.isnan(found[4])
    only = [rows[0], rows[2]]  # one full training measures all, as a recipe may train a scaffold for longer
    assert lines_of(only)[0].recovery == pytest.approx(0.5)


def test_the_init_typed_beside_a_baseline_does_not_split_its_seeds():
    inits = [{"family": family, "parameters": {}} for family in ("normal", "binary")]
    rows = [
        make_baseline(seed=seed, config=config_of(scaffold=None, init=init))
        for seed, init in enumerate(inits)
    ]
    (full,) = lines_of(rows, "full")
    assert full.scores.n == 2


def test_one_distribution_is_one_line_by_whatever_name_it_was_typed():
    rows = [
        make_row(seed=seed, init=init, config=config_of())
        for seed, init in ((1, "normal_0.1"), (2, "normal"))
    ]
    assert [line.scores.n for line in lines_of(rows)] == [2]


@pytest.mark.parametrize("key", ["keep", "freeze"])
def test_runs_that_leave_out_other_matrices_are_never_averaged(key):
    def left_out(name):
        config = config_of()
        return config | {"model": config["model"] | {key: [name]}}

    rows = [make_row(seed=seed, config=left_out(name)) for seed, name in ((1, "body.1"), (2, "body.4"))]
    assert [line.scores.n for line in lines_of(rows)] == [1, 1]
    assert [line.options for line in lines_of(rows)] == [f"{key}=['body.1']", f"{key}=['body.4']"]


def test_runs_of_other_learned_weights_are_never_averaged():
    rows = [
        make_row(seed=seed, weights_fingerprint=digest) for seed, digest in ((1, "a"), (2, "b"), (3, "b"))
    ]
    assert sorted(line.scores.n for line in lines_of(rows)) == [1, 2]


def test_a_name_typed_for_some_runs_does_not_part_them_from_the_full_training_of_the_same_changes():
    same = {"changed": {"epochs": 1}, "config": config_of(epochs=1)}
    rows = [make_row(recipe="short", **same), make_baseline(recipe="modified", **same)]
    (block,) = blocks_of(rows)
    assert block.recipe == "short"
    assert block.baseline is not None


def test_eight_and_eight_point_zero_are_one_alpha():
    assert [line.scores.n for line in lines_of([make_row(seed=1, alpha=8), make_row(seed=2, alpha=8.0)])] == [
        2
    ]


@pytest.mark.parametrize("other", [{"rank": 4}, {"init": "binary"}, {"alpha": 16.0}])
def test_rows_of_other_scaffolds_are_never_averaged(other):
    assert [line.scores.n for line in lines_of([make_row(seed=1), make_row(seed=2, **other)])] == [1, 1]


def test_scaffold_options_that_differ_are_kept_apart_and_named():
    def config(std):
        init = {"family": "normal", "parameters": {"std": std}}
        return {"init": init, "scaffold": init | {"seed": std}}

    found = lines_of([make_row(seed=1, config=config(0.1)), make_row(seed=2, config=config(0.2))])
    assert [line.options for line in found] == ["std=0.1", "std=0.2"]
    assert all(line.paper is None for line in found)


def family_row(family, parameters, **further):
    init = {"family": family, "parameters": parameters}
    config = {"init": init, "scaffold": dict(init), "recipe": {"name": "paper"}}
    return make_row(init=family, config=config, **further)


@pytest.mark.parametrize(
    ("family", "first", "now", "options"),
    [
        ("cauchy", {"clip": 10.0}, {"clip": 10.0, "scaling": "standardised"}, "scaling=literal"),
        ("gaussian_mixture", {}, {"scaling": "standardised"}, "scaling=literal"),
        ("truncated_normal", {"std": 1.0}, {"std": 1.0, "clip": 2.0}, "clip=redrawn"),
        ("kaiming_normal", {"a": 0.0}, {"a": 5**0.5}, "a=0.0"),
        ("sparse_erdos_renyi", {"density": 0.2}, {"density": 0.8}, "density=0.2"),
    ],
)
def test_family_of_the_first_reading_says_so_and_the_one_of_now_needs_no_words(family, first, now, options):
    earlier, later = family_row(family, first, seed=1), family_row(family, now, seed=2)
    assert [line.options for line in lines_of([earlier])] == [options]
    assert sorted(line.options for line in lines_of([earlier, later])) == ["", options]


def test_scaling_that_was_typed_is_named_and_averaged_with_rows_that_imply_it():
    typed = {"recipe": "modified", "changed": {"scaffold.parameters.scaling": "literal"}}
    rows = [family_row("beta", {}, seed=1), family_row("beta", {"scaling": "literal"}, seed=2, **typed)]
    assert [(line.options, line.scores.n) for line in lines_of(rows)] == [("scaling=literal", 2)]


def test_runs_stand_in_the_order_of_their_seeds_and_not_of_their_end():
    late = make_row(seed=42, score=0.9, finished="2026-01-02T00:00:00+00:00")
    early = make_row(seed=100, score=0.8, finished="2026-01-01T00:00:00+00:00")
    (block,) = blocks_of([early, late])
    assert [run["seed"] for run in block.lines[0].runs] == [42, 100]


def test_repeated_seed_counts_once_with_its_newest_row():
    old, new = make_row(score=0.1), make_row(score=0.9, finished="2027-01-01T00:00:00+00:00")
    (line,) = lines_of([new, old])
    assert (line.scores.n, line.scores.mean, line.superseded) == (1, 0.9, 1)
    assert any("the newest counts" in note for note in notes(blocks_of([new, old])[0]))


def test_scaffold_removed_after_training_is_a_line_of_its_own():
    rows = [make_row(score=0.9, arms={"scaffold_removed": 0.7}), make_baseline(score=1.0)]
    (line,) = lines_of(rows, "no_scaffold")
    assert (line.scores.mean, line.recovery) == (0.7, 0.7)


def test_block_without_a_baseline_has_no_recovery_and_says_how_to_get_it():
    (block,) = blocks_of([make_row()])
    assert all(math.isnan(line.recovery) for line in block.lines)
    assert any("mode=baseline" in note for note in notes(block))


def test_both_trainable_shares_are_given():
    (line,) = lines_of([make_row()])
    assert line.percent_of_full == pytest.approx(100 * 21774 / 575050)
    assert line.percent_of_full_plus_adapters == pytest.approx(100 * 21774 / 596174)


def test_difference_from_the_paper_is_ours_minus_theirs():
    (line,) = lines_of([make_row(score=0.970)])
    assert line.difference == pytest.approx(0.002)


def test_runs_of_one_named_recipe_are_told_apart_by_what_they_changed():
    named = {"recipe": "2-epochs", "changed": {"trainer.epochs": 2}}
    faster = named | {"changed": {"trainer.epochs": 2, "optimizer.lr": 0.01}}
    assert row_options(make_row(**named)) == "trainer.epochs=2"
    assert row_options(make_row(**faster)) == "trainer.epochs=2, optimizer.lr=0.01"


@pytest.mark.parametrize(
    "other",
    [
        {"sample": True},
        {"config": {"data": {"features": "structural"}}},
        {"recipe": "short"},
        {"recipe": "modified", "changed": {"trainer.epochs": 1}},
        {"init": "binary"},
        {"alpha": 1.0},
        {"data": "digits"},
        {"rank": 3, "alpha": 3.0},
    ],
)
def test_paper_is_never_set_beside_what_it_did_not_measure(other):
    (line,) = lines_of([make_row(**other)])
    assert line.paper is None
    assert math.isnan(line.difference)


def test_average_of_the_paper_over_sizes_has_no_difference():
    (line,) = lines_of([make_row()], "no_scaffold")
    assert line.paper.all_sizes
    assert math.isnan(line.difference)


def test_blocks_do_not_depend_on_the_order_of_rows():
    rows = [make_row(rank=rank, seed=seed) for rank in (16, 2, 8) for seed in (1, 2)] + [make_baseline()]
    assert [line.rank for line in lines_of(rows)] == [2, 8, 16]
    assert repr(blocks_of(rows)) == repr(blocks_of(rows[::-1]))  # repr: NaN equals itself there


def test_diverged_run_is_named_and_in_no_mean():
    (block,) = blocks_of([make_row(seed=1, score=None), make_row(seed=2, score=0.9)])
    assert block.lines[0].scores.mean == 0.9
    assert block.lines[0].scores.n == 1
    assert any("Runs without a finite score (diverged): 1;" in note for note in notes(block))
    line, removed = csv.DictReader(io.StringIO(recovery_csv([block])))
    assert (line["n"], line["diverged"]) == ("1", "1")
    assert (removed["n"], removed["diverged"]) == ("1", "1")


def test_full_training_that_diverged_is_named_as_why_there_is_no_recovery():
    (block,) = blocks_of([make_row(), make_baseline(score=None)])
    assert "Every run of full training diverged, so no recovery." in notes(block)
    (block,) = blocks_of([make_row(), make_baseline(score=None), make_baseline(seed=43)])
    assert not any("no recovery" in note for note in notes(block))


def test_beta_of_a_diverged_run_is_in_no_figure():
    rows = [make_row(seed=1, score=None, beta={"a": 3.0}), make_row(seed=2, beta={"a": 0.9})]
    (block,) = blocks_of(rows)
    assert [arm.by_layer for arm in arms_of(block)] == [{"a": [(2, 0.9)]}]


def test_an_option_that_came_later_and_was_not_chosen_parts_no_rows():
    old = make_row(seed=1, config={"scaffold": {"family": "normal"}})
    new = make_row(seed=2, config={"scaffold": {"family": "normal", "dora": False, "dropout": 0.0}})
    other = make_row(seed=3, config={"scaffold": {"family": "normal", "dora": True, "dropout": 0.0}})
    assert [line.scores.n for line in lines_of([old, new, other])] == [2, 1]


def test_a_changed_scaffold_is_measured_by_the_same_full_training():
    def changed(**changes):
        words = {key.replace("__", "."): value for key, value in changes.items()}
        return make_row(
            alpha=2.0,
            score=0.7,
            arms={},
            recipe="modified",
            changed=words,
            config={"recipe": {"name": "paper"}},
        )

    rows = [make_row(arms={}), make_baseline(score=1.0), changed(scaffold__alpha=2)]
    rows.append(changed(scaffold__alpha=2, trainer__epochs=1))
    ours, other = blocks_of(rows)
    assert (ours.recipe, ours.changed) == ("paper", {})
    kept, alpha = sorted((line for line in ours.lines if line.rank), key=lambda line: line.options)
    assert (kept.options, kept.recovery, kept.paper.mean) == ("", 0.968, 0.968)
    assert (alpha.options, alpha.recovery, alpha.paper) == ("alpha=2", 0.7, None)
    assert (other.recipe, other.changed) == ("modified", {"trainer.epochs": 1})
    assert math.isnan(other.lines[0].recovery)


def test_adapters_elsewhere_have_their_own_line_and_no_number_of_the_paper():
    places = {"attention": {}, "all": {}}

    def placed(place, trainable):
        counts = make_row()["counts"] | {"trainable": trainable}
        return make_row(arms={}, counts=counts, config={"model": {"place": place, "places": places}})

    ours, other = lines_of([placed("attention", 100), placed("all", 200)])
    assert (ours.options, ours.paper.mean) == ("", 0.968)
    assert (other.options, other.paper) == ("place=all", None)


def test_runs_of_two_precisions_are_neither_averaged_nor_compared():
    rows = [make_row(seed=1), make_row(seed=2, device="NVIDIA H200, bf16-mixed"), make_baseline()]
    narrow, wide = sorted(blocks_of(rows), key=lambda block: len(block.lines))
    assert (wide.precision, narrow.precision) == ("", "bf16-mixed")
    assert [line.scores.n for line in wide.lines if line.condition == "scaffold"] == [1]
    assert "mixed precision (bfloat16)" in narrow.title and "precision" not in wide.title


def test_a_further_score_has_a_block_of_its_own():
    rows = [make_row(further={"d4rl_score": 45.0, "steps": 3.0}), make_baseline(further={"d4rl_score": 90.0})]
    first, second = blocks_of(rows)
    assert (first.metric.name, second.metric.name) == ("accuracy", "D4RL score")
    (line,) = [line for line in second.lines if line.condition == "scaffold"]
    assert (first.own, second.own, line.own_rows) == (True, False, False)
    assert (line.scores.mean, line.recovery, line.share_above_chance) == (45.0, 0.5, 0.5)


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        (0.9631, "within the margin (n = 1, untested)"),
        (0.9629, "outside the margin (n = 1, untested)"),
        (0.9731, "outside the margin (n = 1, untested)"),
        (None, ""),
    ],
)
def test_verdict_of_one_run_says_that_nothing_was_tested(score, verdict):
    (line,) = lines_of([make_row(score=score)])
    assert line.verdict == verdict


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [
        (0.968, 0.001, "agrees"),
        (0.968, 0.01, "undecided"),  # as near as can be, and three such runs do not show it
        (0.976, 0.001, "above"),
        (0.960, 0.001, "below"),
        (0.972, 0.002, "undecided"),  # within half a point of 96.8 %, which three runs do not show
    ],
)
def test_verdict_of_three_runs_is_that_of_the_test_of_equivalence(mean, spread, verdict):
    scores = (mean - spread, mean, mean + spread)
    (line,) = lines_of([make_row(seed=seed, score=score) for seed, score in enumerate(scores)])
    assert line.verdict == verdict


def test_scores_by_seed_average_the_scaffolds_of_a_seed():
    seeds = [(1, 3, 0.8), (1, 2, 0.9), (2, 1, 0.7), (3, 1, None)]
    rows = [make_row(seed=seed, backbone_seed=other, score=score) for seed, other, score in seeds]
    (line,) = lines_of(rows)
    assert line.by_seed == {1: pytest.approx(0.85), 2: 0.7, 3: None}
    (removed,) = lines_of(rows, "no_scaffold")
    assert removed.by_seed == {1: pytest.approx(0.963), 2: 0.963, 3: None}


def test_runs_of_one_training_seed_count_once():
    pairs = [(42, 42, 0.968), (42, 43, 0.9), (43, 42, 0.8), (43, 44, 0.9)]
    rows = [make_row(seed=seed, backbone_seed=other, score=score) for seed, other, score in pairs]
    (line,) = lines_of(rows)
    assert line.by_seed == {42: 0.968, 43: pytest.approx(0.85)}  # the pair of equal seeds, else a mean
    assert (line.scores.n, line.scores.mean) == (2, pytest.approx(0.909))
    assert len(line.runs) == 4


def test_verdict_says_above_or_below_whichever_direction_is_better():
    pair = {"model": "decision_transformer", "data": "halfcheetah", "size": "small", "init": "normal"}
    config = {"data": {"source": "d4rl", "id": None}}
    row = make_row(**pair, metric="mse", higher_is_better=False, score=0.02, alpha=8.0, config=config)
    rows = [row | {"seed": seed, "score": 0.02 + 0.0001 * seed, "digest": str(seed)} for seed in range(3)]
    (line,) = lines_of(rows)
    assert (line.paper.mean, line.verdict) == (0.02832, "below")


def cifar10_row(**adapter):
    pair = {"model": "resnet", "data": "cifar10", "size": "plain20", "init": "normal"}
    return make_row(**pair, score=0.88, config={"scaffold": {"family": "normal", **adapter}})


@pytest.mark.parametrize(
    ("adapter", "label", "paper"),
    [
        ({}, "scaffold", 0.8618),
        ({"dora": False, "residual": False}, "scaffold", 0.8618),
        ({"residual": True}, "scaffold + residual", 0.862),
        ({"dora": True, "residual": True}, "scaffold + DoRA + residual", 0.8812),
        ({"dora": True}, "scaffold + DoRA", None),
        ({"B_init": "kaiming"}, "scaffold + B drawn by Kaiming", None),
    ],
)
def test_options_of_adapters_are_part_of_what_the_paper_calls_a_condition(adapter, label, paper):
    (line,) = lines_of([cifar10_row(**adapter)])
    assert line.label == label
    assert (line.paper and line.paper.mean) == (paper and pytest.approx(paper))


def test_the_variants_of_a_table_each_keep_their_number_of_the_paper():
    rows = [cifar10_row(), cifar10_row(residual=True), cifar10_row(dora=True, residual=True)]
    rows[2]["counts"] = rows[2]["counts"] | {"trainable": 21775}  # the magnitudes
    assert [(line.adapter, line.options) for line in lines_of(rows)] == [
        ("", ""),
        ("+dora+residual", ""),
        ("+residual", ""),
    ]
    assert all(line.paper for line in lines_of(rows))


def test_options_that_the_paper_calls_a_variant_stand_beside_its_number():
    pair = {"model": "vit_random", "data": "flowers102", "size": "base", "init": "normal"}
    plain, normed = (
        make_row(**pair, rank=16, alpha=16.0, config={"scaffold": {"layer_norm": on}}) for on in (False, True)
    )
    assert [line.paper.mean for line in lines_of([plain, normed])] == pytest.approx([0.5427, 0.5556])
