"""What a terminal shows of many tables, of long ones, and of many files."""

import io
from pathlib import Path

from rich.console import Console

from lottalora.report.from_rows import blocks_of
from lottalora.report.screen import FILES
from lottalora.report.screen import LINES
from lottalora.report.screen import TABLES
from lottalora.report.screen import files_text
from lottalora.report.screen import show_tables
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


def shortened(count):
    return [make_row(recipe=f"{n}-epochs", changed={"epochs": n}) for n in range(1, count + 1)]


def families():
    return [make_row(init=f"family_{n}") for n in range(LINES)]


def said_of(rows, **options):
    console = Console(file=io.StringIO(), width=200)
    show_tables(blocks_of(rows), console, **options)
    return console.file.getvalue()


def test_a_few_tables_are_printed_whole():
    said = said_of([*shortened(TABLES - 1), make_row(), *families()])
    assert said.count("MNIST, MLP, medium") == TABLES
    assert said.count("family ") == 2 * LINES  # of each, with and without W_seed
    assert "--all" not in said


def test_of_many_tables_one_for_each_benchmark_is_printed_with_the_arms_of_the_recipe():
    rows = [*shortened(TABLES), make_row(data="digits", recipe="demo"), make_baseline(), make_row()]
    rows += families()
    said = said_of(rows)
    assert "MNIST, MLP, medium, 575,050 parameters, recipe paper" in said
    assert "recipe demo" in said and "-epochs" not in said
    assert "full training" in said and "scaffold removed" in said and "family " not in said
    assert f"{2 * LINES} more lines: --all prints them." in said
    assert f"one table for each benchmark, of {TABLES + 2}." in said
    everything = said_of(rows, everything=True)
    assert everything.count("-epochs") >= TABLES and everything.count("family ") == 2 * LINES
    assert "--all" not in everything


def test_a_folder_of_many_files_is_counted_and_others_are_named():
    many = [Path(f"figures/{n}.png") for n in range(FILES + 1)]
    assert files_text([Path("report.html"), *many]) == ["report.html", f"figures: {FILES + 1} files"]
    assert files_text(many[:FILES]) == [str(path) for path in many[:FILES]]
