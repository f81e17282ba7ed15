import csv
import os
import subprocess
import sys

import pytest

from lottalora.cli.main import main
from lottalora.cli.main import parsed
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


@pytest.fixture
def results(tmp_path):
    """A results folder with a small sweep in it."""
    for row in [make_row(), make_row(rank=1, alpha=1.0), make_baseline()]:
        rows.write(row, tmp_path / "results")
    return tmp_path / "results"


def test_rows_are_printed_as_csv(results, capsys):
    assert main(["rows", "--results", str(results)]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert sorted(line["mode"] for line in lines) == ["baseline", "scaffold", "scaffold"]


def test_report_prints_the_table_and_writes_every_file(results, tmp_path, capsys):
    out = tmp_path / "elsewhere"
    assert main(["report", "--results", str(results), "--out", str(out)]) == 0
    assert "MNIST, MLP, medium" in capsys.readouterr().out
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    names = ("beta_mlp_mnist_medium", "rank_curve_mlp_mnist_medium", "headline")
    figures = [f"figures/{name}.{ending}" for name in names for ending in ("csv", "png", "svg")]
    tables = [f"tables/recovery.{ending}" for ending in ("csv", "md", "tex")]
    assert written == sorted([*figures, "figures/written_by_report.txt", "report.html", *tables])


def test_figures_of_rows_that_are_gone_go_and_nobody_elses(results, tmp_path):
    mine = results / "figures" / "mine.png"
    other = [rows.write(make(size="small"), results) for make in (make_row, make_baseline)]
    main(["report", "--results", str(results)])
    mine.write_text("drawn by hand")
    outside = tmp_path / "outside.txt"
    outside.write_text("kept")
    with (results / "figures" / "written_by_report.txt").open("a") as manifest:
        manifest.write("../../outside.txt\n")
    assert (results / "figures" / "rank_curve_mlp_mnist_small.png").exists()
    for path in other:
        path.unlink()
    main(["report", "--results", str(results)])
    names = {path.name for path in (results / "figures").iterdir()}
    assert not [name for name in names if "small" in name]
    assert {"mine.png", "rank_curve_mlp_mnist_medium.png", "beta_mlp_mnist_medium.svg"} <= names
    assert outside.exists()


def test_report_goes_beside_the_rows_by_default(results):
    main(["report", "--results", str(results)])
    assert (results / "tables" / "recovery.md").is_file()


@pytest.mark.parametrize("command", [["report"], ["analyse", "statistics"]])
def test_rows_are_chosen_by_the_words_of_a_run_and_no_file_is_written(results, capsys, command):
    for size in ("small", "tiny"):
        rows.write(make_row(size=size, data="digits"), results)
    words = ["data=digits", "--results", str(results), "model.size=tiny"]
    assert main([*command, *words]) == 0
    said = capsys.readouterr().out
    assert "MLP, tiny" in said and "MLP, small" not in said and "MNIST" not in said
    assert [path.name for path in results.iterdir()] == ["rows"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=mnsit"], "No row has data=mnsit. Did you mean data=mnist? Known: mnist."),
        (["rank=8"], "'rank=8' chooses no rows. Type KEY=VALUE, with one of model, model.size, data"),
        (["mnist"], "'mnist' chooses no rows. Type KEY=VALUE"),
        (["data=mnist", "--out", "x"], "--out is for files, and with data=mnist none is written."),
    ],
)
def test_words_that_choose_no_row_say_which_do(results, capsys, words, said):
    assert main(["report", *words, "--results", str(results)]) == 1
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.parametrize("command", ["rows", "report"])
def test_unreadable_row_is_named_and_the_others_are_still_reported(results, capsys, command):
    damaged = rows.write(make_row(rank=2), results)
    damaged.write_text("{")
    assert main([command, "--results", str(results)]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert str(damaged) in said.err
    assert "scaffold" in said.out


def test_unreadable_rows_are_counted_in_the_report(results):
    rows.write(make_row(rank=2), results).write_text("{")
    main(["report", "--results", str(results)])
    assert (
        "3 rows in 1 table; 1 unreadable file left out." in (results / "tables" / "recovery.md").read_text()
    )


@pytest.mark.parametrize("command", ["rows", "report"])
def test_folder_without_rows_is_an_error_that_says_what_to_type(tmp_path, capsys, command):
    assert main([command, "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(
        f"No rows in {tmp_path}/rows. Make one: python run.py model=mlp data=digits rank=8"
    )
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["status"], ["sync", "--offline"]])
def test_results_folder_that_does_not_exist_is_an_error_and_one_without_rows_is_none(tmp_path, capsys, words):
    assert main([*words, "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main([*words, "--results", str(tmp_path / "typo")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"There is no folder {tmp_path}/typo. Make one: python run.py model=mlp")
    assert (said.err.count("\n"), said.out) == (1, "")


def test_unknown_command_is_refused_with_the_nearest_name(capsys):
    assert main(["reprot"]) == 2
    known = (
        "analyse, cancel, card, completion, doctor, export, inspect, page, plan, report, rows, run, score, "
        "size, status, submit, sync, verify"
    )
    said = f"Unknown command 'reprot'. Did you mean 'report'? Known: {known}.\n"
    assert capsys.readouterr().err == said


def test_report_into_a_path_that_is_a_file_is_refused_in_one_line(results, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["report", "--results", str(results), "--out", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Cannot write the report to {tmp_path}/file: ")
    assert "--out DIR" in said


def test_help_names_both_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    assert "print all rows as CSV" in said
    assert "print the recovery table" in said


def test_options_may_stand_between_the_words_of_a_sweep(capsys):
    asked = parsed(["plan", "sweeps=table14", "--json", "rank=1"])
    assert (asked.overrides, asked.json) == (["sweeps=table14", "rank=1"], True)
    for words in (["plan", "rank=1", "--josn"], ["rows", "rank=1"]):
        with pytest.raises(SystemExit, match="2"):
            parsed(words)
        assert f"unrecognized arguments: {words[-1]}" in capsys.readouterr().err


def test_rows_are_printed_without_importing_torch_or_matplotlib(results):
    code = (
        "import sys, lottalora.cli.main as m; m.main(sys.argv[1:]); "
        "print([n for n in ('torch', 'matplotlib', 'pandas', 'rich') if n in sys.modules], file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, "rows", "--results", str(results)],
        capture_output=True, text=True, env=os.environ, check=True,
    )  # fmt: skip
    assert run.stderr == "[]\n"


def test_reader_that_stops_early_causes_no_error(results):
    code = f"{sys.executable} -m lottalora rows --results {results} | head -c 1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
