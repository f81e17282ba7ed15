"""scripts/wandb_workspace.py: the views that it builds, and how one is saved."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row
from tests.tracking.server import server

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"
pytest.importorskip("wandb_workspaces", reason="needs the package wandb-workspaces")


def script(home, *words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(home)}
    command = [sys.executable, "scripts/wandb_workspace.py", "--entity", "someone"]
    command += ["--results", str(home / "results"), *words]
    return subprocess.run(
        command, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("workspace")
    for row in (make_baseline(), make_row(rank=8), make_row(rank=2, score=0.93), make_row(data="digits")):
        rows.write(row, home / "results")
    return home


@pytest.fixture(scope="module")
def views(home):
    ran = script(home, "--dry-run")
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def panels_of(view):
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def test_each_benchmark_has_a_view_of_its_runs_alone(views):
    assert [view["displayName"] for view in views] == ["mlp on digits", "mlp on mnist"]
    (runs,) = views[1]["spec"]["section"]["runSets"]
    asked = [(each["key"]["name"], each["op"], each["value"]) for each in runs["filters"]["filters"]]
    assert asked == [("tags", "IN", ["mlp"]), ("tags", "IN", ["mnist"])]


def test_view_holds_the_recovery_table_of_the_report(views):
    (table,) = panels_of(views[1])["Recovery, from the rows"]
    assert "| full training | – | – | 1 | 98.38 | 100.0 |" in table["config"]["value"]
    assert "| scaffold | N(0, 0.1²) | 2 | 1 | 93.00 | 94.5 |" in table["config"]["value"]


def test_rank_curve_shows_the_score_of_the_row_over_its_rank(views):
    curve = panels_of(views[1])["Rank curves"][0]["config"]
    assert (curve["xAxis"], curve["yAxis"]) == ("config:row.value.rank", "summary:test/score")


def test_beta_of_each_layer_is_drawn_over_the_epochs(views):
    (beta,) = panels_of(views[1])["β of each layer"]
    assert beta["config"]["metricRegex"] == "beta/.*"
    assert beta["config"]["xAxis"] == "epoch"


def test_views_are_saved_and_their_addresses_printed(home):
    with server() as (address, _, sent):
        ran = script(home, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
        saved = [json.loads(raw)["variables"] for raw in sent if b"upsertView" in raw]
    assert ran.returncode == 0, ran.stderr
    assert [view["displayName"] for view in saved] == ["mlp on digits", "mlp on mnist"]
    assert ran.stdout.count("/someone/lottalora?nw=") == 2
    assert KEY not in ran.stdout + ran.stderr


def test_machine_without_a_key_is_told_so(home):
    ran = script(home)
    assert ran.returncode == 1
    assert ran.stderr.startswith("There is no W&B key for") and ran.stderr.count("\n") == 1


def test_folder_without_rows_is_refused(tmp_path):
    assert script(tmp_path, "--dry-run").stderr.startswith("No rows in")
