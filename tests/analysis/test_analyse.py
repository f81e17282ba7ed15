"""`lottalora analyse statistics`, from rows to files."""

import csv

import pytest

from lottalora.cli.main import main
from lottalora.report.analyses.statistics import analyse
from lottalora.report.from_rows import blocks_of
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

SEEDS = (42, 43, 44, 45, 46)
FULL = (0.984, 0.985, 0.986, 0.984, 0.985)
RANK_8 = (0.968, 0.969, 0.967, 0.968, 0.969)
RANK_32 = (0.983, 0.986, 0.985, 0.985, 0.984)


def sweep():
    full = [make_baseline(seed=seed, score=score) for seed, score in zip(SEEDS, FULL, strict=True)]
    eight = [make_row(seed=seed, score=score) for seed, score in zip(SEEDS, RANK_8, strict=True)]
    wide = {"rank": 32, "alpha": 32.0, "arms": {}}
    many = [make_row(seed=seed, score=score, **wide) for seed, score in zip(SEEDS, RANK_32, strict=True)]
    return [*full, *eight, *many]


def cells(found, place, start):
    table = found.tables[place]
    (line,) = [line for line in table.lines if line[: len(start)] == start]
    return dict(zip(table.headings, line, strict=True))


def test_command_prints_the_tables_and_writes_markdown_and_csv(tmp_path, capsys):
    for row in sweep():
        rows.write(row, tmp_path)
    assert main(["analyse", "statistics", "--results", str(tmp_path)]) == 0
    folder = tmp_path / "analyses" / "statistics"
    text, said = (folder / "statistics.md").read_text(), capsys.readouterr().out
    assert "against full training, over common seeds" in text and "against full training" in said
    assert "0.062 (least 0.062)" in text and "0.062 (least 0.062)" in said
    lines = list(csv.DictReader((folder / "statistics.csv").open()))
    assert [(line["condition"], line["rank"], line["n"]) for line in lines][:2] == [
        ("full", "", "5"),
        ("scaffold", "8", "5"),
    ]
    assert float(lines[1]["full_difference"]) == pytest.approx(-0.0166)


def test_arm_stands_beside_the_paper_and_full_training():
    found = analyse(blocks_of(sweep()))
    paper = cells(found, 0, ["scaffold", "N(0, 0.1²)", "8"])
    assert (paper["n"], paper["mean ± std"], paper["paper"]) == ("5", "96.82 ± 0.08", "96.80")
    assert paper["95 % interval"] == "[96.72, 96.92]"
    assert paper["verdict"] == "agrees"
    full = cells(found, 1, ["scaffold", "N(0, 0.1²)", "8"])
    assert (full["pairs"], full["arm − full"], full["verdict"]) == ("5", "−1.66", "below")
    assert cells(found, 1, ["scaffold", "N(0, 0.1²)", "32"])["verdict"] == "agrees"


def test_holm_counts_every_test_of_the_block():
    found = analyse(blocks_of(sweep()))
    tested = [line for line in found.numbers if line["t_p"] is not None]
    assert len(tested) == 3  # rank 8, rank 32, and rank 8 with its scaffold removed
    least = min(tested, key=lambda line: line["t_p"])
    assert least["t_p_holm"] == pytest.approx(3 * least["t_p"])


def test_one_seed_gets_no_interval_and_the_table_says_so():
    found = analyse(blocks_of([make_row(arms={}), make_baseline()]))
    assert cells(found, 0, ["scaffold"])["95 % interval"] == "–"
    assert any(
        "Arms without an interval or a test, for n < 3: 2 of 2" in note for note in found.tables[0].notes
    )
    assert cells(found, 1, ["scaffold"])["verdict"] == "outside the margin (n = 1, untested)"


def test_arm_without_a_common_seed_is_refused_by_name_and_the_others_are_compared():
    other = make_row(seed=7, rank=4, alpha=4.0, arms={})
    found = analyse(blocks_of([*sweep(), other]))
    assert not [line for line in found.tables[1].lines if line[2] == "4"]
    said = (
        "scaffold, N(0, 0.1²), r = 4 and full training have no seed in common: 7 against 42, 43, 44, 45, 46."
    )
    assert any(note.startswith(said) for note in found.tables[1].notes)
    assert cells(found, 1, ["scaffold", "N(0, 0.1²)", "8"])["pairs"] == "5"


def test_diverged_and_equal_runs_are_counted_and_shown():
    diverged = make_row(seed=46, rank=16, alpha=16.0, score=None, arms={})
    equal = [
        make_row(seed=seed, score=score, rank=16, alpha=16.0, arms={})
        for seed, score in zip(SEEDS[:4], FULL[:4], strict=True)
    ]
    found = analyse(blocks_of([*sweep(), *equal, diverged]))
    assert cells(found, 0, ["scaffold", "N(0, 0.1²)", "16"])["n"] == "4 (+1 diverged)"
    assert cells(found, 1, ["scaffold", "N(0, 0.1²)", "16"])["pairs"] == "4 (+1 diverged)"
    assert "Pairs with equal scores: 4." in found.tables[1].notes
    assert "Diverged runs, in no number: 1." in found.tables[0].notes


def test_block_without_full_training_names_the_command_that_makes_it():
    (table,) = analyse(blocks_of([make_row(arms={})])).tables
    assert any("run it with mode=baseline" in note for note in table.notes)


def test_unknown_analysis_is_refused_with_the_nearest_name(capsys):
    assert main(["analyse", "statistic"]) == 1
    assert capsys.readouterr().err == (
        "Unknown analysis 'statistic'. Did you mean 'statistics'? "
        "Known: beta, budget, bytes, cost, curves, effects, gating, paths, rank, seeds, similarity, spectra, "
        "statistics.\n"
    )


def test_analysis_without_rows_names_the_command_that_makes_some(tmp_path, capsys):
    assert main(["analyse", "statistics", "--results", str(tmp_path)]) == 1
    assert "Make one: python run.py" in capsys.readouterr().err


def test_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    rows.write(make_row(), tmp_path)
    (tmp_path / "file").write_text("")
    asked = ["analyse", "statistics", "--results", str(tmp_path), "--out", str(tmp_path / "file")]
    assert main(asked) == 1
    assert f"Cannot write to {tmp_path}/file/analyses/statistics: " in capsys.readouterr().err


def test_difference_counts_only_after_holm():
    shifted = [
        score - 0.006 + 0.0041 * step for score, step in zip(FULL, (-1.3, -0.5, 0, 0.5, 1.3), strict=True)
    ]
    wide = {"rank": 4, "alpha": 4.0, "arms": {}}
    arm = [make_row(seed=seed, score=score, **wide) for seed, score in zip(SEEDS, shifted, strict=True)]
    alone = analyse(blocks_of([*sweep()[:5], *arm]))
    among = analyse(blocks_of([*sweep(), *arm]))
    assert cells(alone, 1, ["scaffold", "N(0, 0.1²)", "4"])["verdict"] == "below"
    assert cells(among, 1, ["scaffold", "N(0, 0.1²)", "4"])["verdict"] == "undecided"
