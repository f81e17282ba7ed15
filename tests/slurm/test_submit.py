"""What `submit` would send, which needs no Slurm: for folders with odd names, and for runs that are done."""

import json
import re
import shlex
import subprocess

import pytest
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from lottalora import CONF
from lottalora.cli.main import main
from lottalora.config.identity import portable
from lottalora.results import rows
from lottalora.sweeps.cells import cells_of_overrides
from tests.rows.factory import make_row

WORDS = ("data=digits", "model.size=tiny", "seed=1,2")


@pytest.fixture(params=["odd, (folder) = 'x'", "größe"])
def folder(request, tmp_path):
    """A results folder with one of the two runs."""
    found = tmp_path / request.param
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cells, composer, _ = cells_of_overrides(WORDS)
        config = portable(composer.config(cells[0].overrides)[0])
    rows.write(make_row(**cells[0].identity, config=config), found)
    return found


def said_by(capsys, *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def test_a_job_finds_the_results_folder_whatever_its_name(folder, capsys):
    script = said_by(capsys, "submit", *WORDS, "--dry-run", "--results", str(folder))
    words = shlex.split(re.search(r"words=\((.*)\); log=", script)[1])
    parsed = OverridesParser.create().parse_overrides(words)
    assert not any(each.is_sweep_override() for each in parsed)
    assert {each.key_or_group: each.value() for each in parsed}["paths.results"] == str(folder)
    own = re.search("^own=.*", script, re.MULTILINE)[0]
    shown = subprocess.run(["bash", "-c", f"{own}; echo $own"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith(f"{folder}/slurm/")


def test_results_with_a_comma_are_one_folder(folder, capsys):
    found = json.loads(said_by(capsys, "status", *WORDS, "--results", str(folder), "--json"))
    assert (found["runs"], found["done"]) == (2, 1)


def test_force_sends_what_is_done_again(folder, capsys):
    again = said_by(capsys, "submit", *WORDS, "force=true", "--dry-run", "--results", str(folder))
    assert again.startswith("2 runs: 0 done, 0 running or in the queue, 2 to send")
    once = said_by(capsys, "submit", *WORDS, "--dry-run", "--results", str(folder))
    assert once.startswith("2 runs: 1 done, 0 running or in the queue, 1 to send")
