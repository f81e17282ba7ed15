import csv
import io

import pytest
from rich.console import Console

from lottalora.report.csv_text import rows_csv
from lottalora.report.docs.tables import headline
from lottalora.report.from_rows import blocks_of
from lottalora.report.number_text import share
from lottalora.report.screen import show
from lottalora.report.tables import headings
from lottalora.report.tables import markdown
from lottalora.report.tables import recovery_csv
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

ROWS = [
    make_baseline(seed=1, score=0.98),
    make_baseline(seed=2, score=0.99),
    make_row(seed=1, score=0.96),
    make_row(seed=2, score=0.97),
    make_row(mode="head", rank=0, alpha=None, arms={}),
    make_row(recipe="modified", changed={"a|b_c": "x & y"}),
]
BLOCKS = blocks_of(ROWS)
COLUMNS = len(headings(BLOCKS[0].metric))


def test_markdown_has_the_same_number_of_cells_in_every_line():
    lines = [line for line in markdown(BLOCKS, "").splitlines() if line.startswith("|")]
    assert len(lines) == sum(len(block.lines) + 2 for block in BLOCKS)
    assert {line.count("|") for line in lines} == {COLUMNS + 1}


def test_accuracy_is_shown_in_percent_with_its_deviation_and_the_paper_beside_it():
    scaffold = next(line for line in markdown(BLOCKS, "").splitlines() if line.startswith("| scaffold |"))
    cells = [cell.strip() for cell in scaffold.strip("|").split("|")]
    expected = ["scaffold", "N(0, 0.1²)", "8", "2", "96.50 ± 0.71", "98.0", "97.7", "21,774"]
    assert cells == [*expected, "3.79", "3.65", "96.80", "−0.30", "within the margin (n = 2, untested)"]


def test_score_of_three_runs_has_its_interval():
    rows = [make_row(seed=seed, score=score) for seed, score in enumerate((0.96, 0.97, 0.98))]
    assert "| 97.00 ± 1.00 [94.52, 99.48] |" in markdown(blocks_of(rows), "")  # 4.303 × 1 / √3 = 2.484


def test_headline_takes_the_ranks_that_were_run_and_names_another_precision():
    mixed = {"recipe": "modified", "changed": {"steps.precision": "bf16-mixed"}, "device": "cpu, bf16-mixed"}
    mixed |= {"config": {"recipe": {"name": "paper"}}}
    rows = [make_row(rank=rank, score=0.9, **mixed) for rank in (8, 16)] + [make_baseline(score=1.0, **mixed)]
    assert [line.split("|")[2].strip() for line in headline(blocks_of(rows)).splitlines()[2:]] == [
        "full training",
        "scaffold, r = 8",
    ]
    alone = headline(blocks_of([rows[1], rows[2]])).splitlines()[-1]
    assert "scaffold, r = 16" in alone and "90.00 (n = 1), bf16-mixed" in alone


def test_csv_of_the_table_keeps_the_unit_of_rows_and_every_digit():
    lines = list(csv.DictReader(io.StringIO(recovery_csv(BLOCKS))))
    assert len(lines) == sum(len(block.lines) for block in BLOCKS)
    line = next(line for line in lines if line["condition"] == "scaffold" and line["recipe"] == "paper")
    assert float(line["mean"]) == pytest.approx(0.965, abs=1e-12)
    assert float(line["recovery"]) == pytest.approx(0.965 / 0.985, abs=1e-12)
    assert float(line["paper"]) == pytest.approx(0.968)


def test_csv_of_rows_has_the_agreed_columns_and_one_line_per_row():
    text = rows_csv(ROWS)
    assert text.splitlines()[0] == (
        "model,size,data,sample,mode,init,rank,seed,recipe,metric,score,trainable,full,full_plus_adapters,"
        "validation_score,best_epoch,diverged,seconds,device,digest,alpha,options,scaffold_removed,commit,"
        "commit_state"
    )
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["digest"] for line in lines] == [row["digest"] for row in ROWS]
    assert (lines[0]["rank"], lines[2]["rank"], lines[2]["trainable"]) == ("", "8", "21774")


@pytest.mark.parametrize("width", [60, 80, 128, 200])
def test_terminal_table_cuts_off_no_number_however_narrow(width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    show(BLOCKS[0], console)
    shown = console.file.getvalue()
    assert "…" not in shown
    assert ("96.50 ± 0.71" in shown) == (width >= 128)


def test_a_share_above_all_of_the_full_model_is_stated_as_it_is():
    values = (0.0123456, 3.786, 99.94, 100.0, 149.2, 441.07, 222_923.4)
    assert [share(value) for value in values] == ["0.0123", "3.79", "99.9", "100", "149", "441", "222,923"]
