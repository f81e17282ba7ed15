"""`lottalora doctor` and the commands' names, in processes of their own."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from lottalora.results.rows import write
from tests import commands
from tests.rows.factory import make_row

ROOT = Path(__file__).parents[2]


def doctor(home, *words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "LOTTALORA_DATA": str(home / "data")}
    return commands.run("-m", "lottalora", "doctor", *words, env=kept | environment, cwd=home, timeout=60)


def test_doctor_says_where_it_looked_for_mnist_and_what_to_do(tmp_path):
    ran = doctor(tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if "data mnist" in line]
    assert line.startswith("note")
    assert str(tmp_path / "data" / "mnist" / "MNIST" / "raw") in line
    assert "LOTTALORA_DATA" in line


def test_doctor_gives_json_with_a_remedy_for_all_that_is_not_ok(tmp_path):
    checks = json.loads(doctor(tmp_path, "--json").stdout)
    assert {check["name"] for check in checks} >= {
        "python",
        "torch",
        "devices",
        "results",
        "network",
        "slurm",
    }
    assert [check for check in checks if check["state"] != "ok" and not check["remedy"]] == []


def test_doctor_finds_a_key_of_wandb_and_does_not_print_it(tmp_path):
    key = "0123456789abcdef0123456789abcdef01234567"
    ran = doctor(tmp_path, WANDB_API_KEY=key, WANDB_BASE_URL="http://127.0.0.1:9")
    assert "found; http://127.0.0.1:9 does not answer" in ran.stdout
    assert key not in ran.stdout + ran.stderr


def test_console_script_leads_to_the_commands():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"lottalora": "lottalora.cli.main:main"}


def test_bash_completion_offers_groups_and_choices(tmp_path):
    script = (
        f'set -e; PATH="{Path(sys.executable).parent}:$PATH"; cd "{ROOT}"; '
        'eval "$(python run.py -sc install=bash)"; '
        'COMP_LINE="python run.py logger=w" COMP_POINT=22 python run.py -sc query=bash'
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert ran.stdout.split() == ["logger=wandb"], ran.stderr


def test_doctor_names_rows_whose_code_is_in_no_history(tmp_path):
    write(make_row(commit="3fc16a34" * 5, config={"data": {}, "model": {"size": "medium"}}), tmp_path)
    (line,) = [
        line for line in doctor(tmp_path, "--results", tmp_path).stdout.splitlines() if " rows " in line
    ]
    assert "1 of 1 made by code that is in no history here (3fc16a34)" in line
    assert "python run.py model=mlp data=mnist model.size=medium" in line
