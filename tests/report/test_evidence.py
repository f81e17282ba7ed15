"""Every number of the paper has a verdict, and the verdict follows from the runs alone."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from lottalora.analysis.cost import GPT
from lottalora.analysis.metrics import metric_of
from lottalora.analysis.speed import table_9
from lottalora.cli.main import main
from lottalora.report.docs import pages
from lottalora.report.docs.families import scales
from lottalora.report.docs.numbers import beside_full
from lottalora.report.docs.numbers import over_sizes
from lottalora.report.docs.numbers import score
from lottalora.report.evidence import KINDS
from lottalora.report.evidence import evidence_of
from lottalora.report.evidence import judged
from lottalora.report.from_rows import blocks_of
from lottalora.report.grouping import stand_in
from lottalora.report.over_families import FAMILIES
from lottalora.report.over_families import MEAN
from lottalora.report.over_families import SPREAD
from lottalora.report.over_families import SWEEPS
from lottalora.report.over_families import families_of
from lottalora.report.paper_cells import cells
from lottalora.report.reasons import reason_of
from lottalora.sweeps.cells import Composer
from tests.rows.factory import make_row

ROOT = Path(__file__).resolve().parents[2]
ACCURACY = metric_of("accuracy")


def cell(table, condition, rank, variant="medium"):
    asked = (table, condition, str(rank or ""), variant)
    keys = ("table", "condition", "rank", "variant")
    return next(each for each in cells() if tuple(each.line[key] for key in keys) == asked)


def scaffolds(*scores, **fields):
    return [make_row(seed=42 + place, score=score, **fields) for place, score in enumerate(scores)]


def find(asked, rows):
    return evidence_of(blocks_of(rows)).find(asked)


def test_every_number_of_the_paper_has_one_cell_and_a_known_verdict():
    found = evidence_of([])
    kinds = [found.find(each).kind for each in cells()]
    assert len(kinds) == 277
    assert set(kinds) == {"open", "within", "outside"} <= set(KINDS)
    assert len(kinds) - kinds.count("open") == 30  # Tables 9 and 10, which need no run


@pytest.mark.slow
def test_shipped_sizes_follow_from_the_counts_of_our_models(capsys):
    sizes = ",".join(GPT)
    words = ["model=gpt", "data=wikitext103", f"model.size={sizes}", "rank=8"]
    assert main(["size", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sizes"]
    assert [(each["full"], each["trained"]) for each in found] == list(GPT.values())
    assert [each["ours"] for each in found] == [2 * trained for _, trained in GPT.values()]
    assert main(["size", "model=mlp", "data=mnist", "mode=baseline"]) == 1
    assert "Leave out mode=baseline" in capsys.readouterr().err
    assert main(["size", "data=digits", "mode=small,baseline"]) == 1
    assert "Leave out mode=small,baseline." in capsys.readouterr().err


def test_dense_cells_of_a_sweep_are_left_out_of_the_sizes_and_counted(capsys):
    words = ["model=mlp", "model.size=tiny", "data=digits", "seed=1,2", "rank=2"]
    assert main(["size", *words, "mode=baseline,scaffold", "--json"]) == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)["sizes"]) == 2
    assert said.err == "2 without a scaffold left out: a dense model is shipped whole\n"


def test_three_runs_are_tested_and_two_are_not():
    asked = cell("14", "scaffold", 8)
    assert find(asked, scaffolds(0.968, 0.9685, 0.969)).kind == "agrees"
    two = find(asked, scaffolds(0.965, 0.968))
    assert (two.kind, two.ours) == ("untested_within", "96.50, 96.80 (n = 2)")
    assert two.verdict == "within the margin, n = 2, untested"
    assert find(asked, scaffolds(0.93, 0.94)).kind == "untested_outside"


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((97.00, 97.05, 97.10), "agrees, 0.25 above"),
        ((97.20, 97.21, 97.22), "agrees, 0.41 above"),  # significant, and yet smaller than the margin of 0.5
        ((97.40, 97.42, 97.44), "differs, 0.62 above"),
        ((97.10, 97.25, 97.40), "differs, 0.45 above, within the margin"),
        ((95.00, 96.80, 98.60), "undecided, 0.00 below"),
        ((90.00,), "outside the margin, 6.80 below, n = 1, untested"),
    ],
)
def test_verdict_is_that_of_an_equivalence_test(scores, said):
    assert judged("", scores, cell("14", "scaffold", 8), ACCURACY).verdict == said


def test_the_whole_recipe_in_another_precision_counts_says_so_and_yields_to_float32():
    asked = cell("14", "scaffold", 8)
    mixed = {"recipe": "modified", "changed": {"steps.precision": "bf16-mixed"}, "device": "cpu, bf16-mixed"}
    mixed |= {"config": {"recipe": {"name": "paper"}}}
    fast = scaffolds(0.965, 0.968, **mixed)
    assert find(asked, fast).ours == "96.50, 96.80 (n = 2), bf16-mixed"
    assert find(asked, fast + scaffolds(0.95)).ours == "95.00 (n = 1)"
    shorter = mixed | {"changed": mixed["changed"] | {"epochs": 3}}
    assert find(asked, scaffolds(0.965, **shorter)).kind == "other"
    named = mixed | {"recipe": "fast"}
    assert find(asked, scaffolds(0.965, **named)).kind == "other"


def test_precision_is_named_over_sizes_and_mixed_with_no_family():
    mixed = {"recipe": "modified", "changed": {"steps.precision": "bf16-mixed"}, "device": "cpu, bf16-mixed"}
    mixed |= {"config": {"recipe": {"name": "paper"}}}
    sizes = [make_row(size="tiny", **mixed), make_row(size="small"), make_row(size="medium")]
    assert find(cell("2", "no_scaffold", 8, "all"), sizes).ours == (
        "96.30 (over sizes, n = 1 each), bf16-mixed"
    )
    assert not families_of(blocks_of(scaffolds(0.96, init="normal", **mixed))).scores


def test_a_run_that_diverged_is_named_beside_those_that_are_tested():
    asked, lost = cell("14", "scaffold", 8), make_row(seed=7, score=None)
    rows = [*scaffolds(0.968, 0.9685, 0.969), lost]
    assert find(asked, rows).ours == "96.85 ± 0.05 (n = 3, 1 diverged)"
    assert score(blocks_of(rows), "mlp", "mnist", "medium", "scaffold", "8") == (
        "96.85 ± 0.05 % (n = 3, 1 diverged)"
    )
    ends = [make_row(size=size, seed=seed, score=score) for size in ("tiny", "small", "medium")
            for seed, score in ((42, 0.968), (43, None))]  # fmt: skip
    assert find(cell("2", "no_scaffold", 8, "all"), ends).ours == "96.30 (over sizes, n = 1 each, 3 diverged)"


def test_a_run_that_diverged_is_not_called_a_run_that_is_missing():
    """Table 12 has the training loss, which is a further score of rows."""
    asked = cell("12", "scaffold", 8, "3M")
    row = make_row(
        model="gpt", data="wikitext103", size="3M", metric="loss", init="normal", alpha=16, score=None
    )
    assert find(asked, [row]).ours == "diverged"


def test_a_cell_that_differs_names_its_reason_and_one_that_agrees_none():
    low, high = cell("14", "scaffold", 1), cell("14", "scaffold", 8)
    assert reason_of(low).name == "low ranks" and reason_of(high) is None
    rows = scaffolds(0.91, 0.911, 0.912, rank=1, alpha=1) + scaffolds(0.968, 0.9685, 0.969)
    page = pages.fill("<!-- rows: evidence -->\n<!-- /rows -->", blocks_of(rows))
    lines = [line for line in page.splitlines() if line.startswith("| mnist, medium | scaffold |")]
    assert "differs, 1.77 above: [low ranks](findings.md#mnist-ranks-1-and-2-lie-above-the-paper)" in lines[0]
    assert lines[3].endswith("| agrees, 0.05 above |")


def test_average_over_sizes_waits_for_every_size():
    asked = cell("2", "no_scaffold", 8, variant="all")
    arms = {"tiny": 0.8, "small": 0.6, "medium": 0.4}
    each = {size: make_row(size=size, arms={"scaffold_removed": arm}) for size, arm in arms.items()}
    part = find(asked, [each["tiny"], each["medium"]])
    assert part.kind == "part" and part.verdict.startswith("in part: tiny, medium;")
    assert find(asked, list(each.values())).ours == "60.00 (over sizes, n = 1 each)"


def test_average_over_sizes_pairs_the_runs_of_a_seed():
    asked = cell("2", "no_scaffold", 8, variant="all")
    scores = {"tiny": {42: 0.9, 43: 0.1}, "small": {43: 0.2}, "medium": {42: 0.9, 43: 0.3, 44: 0.9}}
    rows = [
        make_row(size=size, seed=seed, arms={"scaffold_removed": score})
        for size, of_size in scores.items()
        for seed, score in of_size.items()
    ]
    assert find(asked, rows).ours == "20.00 (over sizes, n = 1 each)"


def test_ends_of_a_range_are_the_least_and_the_greatest_size():
    rows = [
        make_row(size=size, score=score)
        for size, score in (("tiny", 0.95), ("small", 0.96), ("medium", 0.97))
    ]
    assert find(cell("2", "scaffold_min", 8, "all"), rows).ours.startswith("95.00")
    assert find(cell("2", "scaffold_max", 8, "all"), rows).ours.startswith("97.00")


@pytest.mark.parametrize(
    "fields",
    [{"recipe": "short", "changed": {"epochs": 2}}, {"init": "normal"}, {"sample": True}, {"alpha": 1.0}],
)
def test_a_run_of_another_protocol_fills_no_cell(fields):
    finding = find(cell("14", "scaffold", 8), scaffolds(0.968, 0.968, 0.968, **fields))
    assert finding.kind in ("other", "open")


def test_a_shortened_run_is_shown_and_compared_with_nothing():
    finding = find(cell("14", "scaffold", 8), scaffolds(0.9, recipe="short", changed={"epochs": 2}))
    assert (finding.ours, finding.verdict) == ("90.00 (n = 1)", "a shortened recipe, `short`")


@pytest.mark.parametrize("lengths", [(2, 5), (5, 2)])
def test_of_several_shortened_recipes_the_one_of_most_epochs_is_shown(lengths):
    rows = []
    for epochs in lengths:
        rows += scaffolds(
            0.9 + epochs / 100, recipe=f"{epochs}-epochs", epochs=epochs, changed={"epochs": epochs}
        )
    finding = find(cell("14", "scaffold", 8), rows)
    assert (finding.ours, finding.verdict) == ("95.00 (n = 1)", "a shortened recipe, `5-epochs`")


def test_the_command_of_each_cell_is_one_that_the_suite_accepts():
    """One command for each table, condition and size; ranks alone change nothing that could be refused."""
    typed = {(each.line["table"], each.condition, each.sizes): each.typed for each in cells() if each.typed}
    assert len(typed) > 40
    before = HydraConfig.instance().cfg
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        master = hydra.compose_config("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
        composer = Composer(hydra.config_loader, master, jobs=True)
        for command in typed.values():
            words = [word.partition(",")[0] for word in command.split()[2:] if word != "-m"]
            made = composer.cell(words)
            assert made.problem is None, command
            row = {"data": made.identity["data"], "sample": False, "config": made.plain}
            assert stand_in(row) == "", f"{command} takes other data than the paper's"
    HydraConfig.instance().cfg = before


def test_costs_of_table_9_are_those_of_the_file_that_the_benchmark_wrote():
    times = 1.494  # of a scaffold's step to full training's at 900M, as the benchmark's page printed it
    assert table_9("throughput_ratio_to_full", "900M", scaffold=True) == pytest.approx(1 / times, abs=1e-3)
    assert table_9("throughput_ratio_to_full", "900M", scaffold=False) == 1
    assert table_9("peak_gpu_gb", "900M", scaffold=False) == pytest.approx(31.075, abs=1e-3)
    assert table_9("peak_gpu_gb", "900M", scaffold=True) == pytest.approx(19.536, abs=1e-3)


def family_runs(families, sizes=("tiny", "small", "medium"), seeds=(42,), apart=0.001):
    """A run of each: a family scores `apart` above the one before, a size 0.01, a seed 0.001."""
    return [
        make_row(
            init=family,
            rank=4,
            alpha=4,
            size=size,
            seed=seed,
            score=0.858 + place * apart + seed / 1000 + step / 100,
        )
        for place, family in enumerate(families)
        for step, size in enumerate(sizes)
        for seed in seeds
    ]


def test_table_3_is_the_mean_and_the_range_over_families_of_their_means_over_sizes():
    mean, spread = (
        next(each for each in cells() if each.line["metric"].endswith(ending) and each.rank == 4)
        for ending in (MEAN, SPREAD)
    )
    rows = family_runs(FAMILIES)
    assert find(mean, rows).ours == "92.05 (22 families, over sizes, n = 1 each)"
    assert find(spread, rows).ours == "2.10 (22 families, over sizes, n = 1 each)"
    found = find(mean, rows[:-1])
    assert (found.kind, found.verdict) == (
        "part",
        "in part: 65 of 66; the rest by `python run.py -m sweeps=table3`",
    )
    other_seed = family_runs(FAMILIES[1:]) + family_runs(FAMILIES[:1], seeds=(43,))
    assert find(mean, other_seed).kind == "part"
    assert find(mean, family_runs(FAMILIES, seeds=(42, 43, 44))).kind == "differs"
    assert find(mean, []).kind == "open"


def test_the_margin_of_a_spread_over_families_is_half_of_the_papers():
    spread = next(each for each in cells() if each.line["metric"].endswith(SPREAD) and each.rank == 4)
    assert spread.paper == 0.14
    kinds = [
        find(spread, family_runs(FAMILIES, apart=wide / 100 / 21)).kind for wide in (0.08, 0.20, 0.06, 0.22)
    ]
    assert kinds == ["within", "within", "outside", "outside"]


def test_a_spread_over_families_is_that_of_their_means_over_seeds():
    spread = next(each for each in cells() if each.line["metric"].endswith(SPREAD) and each.rank == 4)
    rows = [
        row for seed in (42, 43) for row in family_runs(FAMILIES[:: 1 if seed == 42 else -1], seeds=(seed,))
    ]
    assert find(spread, rows).ours == "0.00 (22 families, over sizes, n = 2 each)"


def test_the_page_says_on_how_many_samples_the_tests_rest():
    scored = {42: 0.968, 43: 0.9685, 44: 0.969}
    rows = [make_row(seed=seed, score=score) for seed, score in scored.items()]
    page = pages.fill("<!-- rows: evidence_dependence --><!-- /rows -->", blocks_of(rows))
    same = [each for each in cells() if find(each, rows).as_runs]  # rank 8 on medium, in several tables
    assert len(same) > 1 and f"the {len(same)} tests are of 1 samples of runs" in page


def test_a_sentence_has_our_number_over_sizes_and_our_distance_from_full_training():
    arms = {"tiny": 0.8, "small": 0.6, "medium": 0.4}
    rows = [make_row(size=size, arms={"scaffold_removed": arm}) for size, arm in arms.items()]
    assert over_sizes(blocks_of(rows), "mlp", "mnist", "no_scaffold", "8") == "60.00 % (n = 1 each)"
    with pytest.raises(ValueError, match="no number of mlp on mnist over sizes for lora, rank 8"):
        over_sizes(blocks_of(rows), "mlp", "mnist", "lora", "8")
    full = {42: 0.98, 43: 0.97, 44: 0.5}
    rows = scaffolds(0.96, 0.96) + [
        make_row(mode="baseline", rank=None, seed=seed, score=score) for seed, score in full.items()
    ]
    assert beside_full(blocks_of(rows), "mlp", "mnist", "medium", "scaffold", "8") == "−1.50"


def test_the_families_of_table_3_are_those_of_its_sweeps():
    for name in SWEEPS.values():
        grids = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["grids"]
        assert tuple(re.split(r",\s*", grids[-1]["init"])) == FAMILIES


def test_scores_at_multiples_of_a_familys_scale_stand_beside_each_other():
    """Trained β first, then β = 1; a family that is not scaled as Table 13 says has no place there."""

    def at(score, init, parameters, **options):
        changed = {f"scaffold.parameters.{key}": value for key, value in parameters.items()} | {
            f"scaffold.{key}": value for key, value in options.items()
        }
        parameters = {"std": 0.1} | parameters if init == "normal_0.1" else parameters
        scaffold = {"family": init.removesuffix("_0.1"), "parameters": parameters, **options}
        config = {"scaffold": scaffold, "recipe": {"name": "paper"}}
        recipe = "modified" if changed else "paper"
        return scaffolds(score, init=init, recipe=recipe, changed=changed, config=config)

    rows = [
        *at(0.97, "normal_0.1", {}),
        *at(0.96, "normal_0.1", {"std": 0.4}),
        *at(0.95, "normal_0.1", {"std": 0.4}, train_beta=False),
        *at(0.94, "uniform", {"scaling": "literal", "bound": 0.025}),
        *at(0.50, "uniform", {"scaling": "standardised"}),
        *at(0.51, "normal_0.1", {}, A_init="zeros"),
    ]
    _, _, quarter, one, four = scales(blocks_of(rows), "mlp", "mnist", "medium", "8").splitlines()
    assert quarter == "| 1/4 | – / – | 94.00 / – | – / – | – / – | – / – |"
    assert one == "| 1 | 97.00 / – | – / – | – / – | – / – | – / – |"
    assert four == "| 4 | 96.00 / 95.00 | – / – | – / – | – / – | – / – |"
