"""Completion with Tab, as bash asks for it; and flags in any place of the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lottalora import CONF
from lottalora.cli.completion import sizes_asked
from lottalora.cli.main import NAMES
from lottalora.cli.main import main
from lottalora.cli.run import flags_first
from tests.commands import run

ROOT = Path(__file__).parents[2]
ASK = """
{script}
lottalora() {{ {python} -m lottalora "$@"; }}
COMP_LINE={line!r}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_POINT=${{#COMP_LINE}}
_shtab_lottalora
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def completed(capsys, line, last):
    """What bash offers for the last word of a line."""
    assert main(["completion", "bash"]) == 0
    words = " ".join(f"'{word}'" for word in [*line.split(), *([""] if line.endswith(" ") else [])])
    asked = ASK.format(script=capsys.readouterr().out, python=sys.executable, line=line, words=words)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    return {word.strip() for word in ran.stdout.split() if word.startswith(last)}


def test_bash_completes_the_commands(capsys):
    assert completed(capsys, "lottalora ", "") >= set(NAMES)
    assert completed(capsys, "lottalora st", "st") == {"status"}


def test_bash_completes_the_options_of_a_command(capsys):
    assert {"--results", "--out", "--columns"} <= completed(capsys, "lottalora report --", "--")


def test_bash_completes_sizes_within_lottalora_run(capsys):
    found = completed(capsys, "lottalora run model=cfc model.size=", "model.size=")
    assert found == {"model.size=1x", "model.size=0.5x", "model.size=0.25x", "model.size=0.125x"}


@pytest.mark.parametrize(
    ("line", "sizes"),
    [
        ("python run.py model=resnet model.size=", ["plain20"]),
        ("python run.py model.size=t", ["tiny", "small", "medium", "large"]),
        ("python run.py model=vit_random model.size=", ["tiny", "base"]),
        ("python run.py model=nothing model.size=", []),
    ],
)
def test_sizes_are_those_of_the_model_that_was_typed(monkeypatch, line, sizes):
    monkeypatch.setenv("COMP_LINE", line)
    found = sizes_asked(["-sc", "query=bash"], CONF)
    assert {f"model.size={size}" for size in sizes} <= set(found) and bool(found) == bool(sizes)


@pytest.mark.parametrize(
    "line", ["python run.py model=mlp ", "python run.py model.si", "python run.py model="]
)
def test_all_else_is_asked_of_hydra(monkeypatch, line):
    monkeypatch.setenv("COMP_LINE", line)
    assert sizes_asked(["-sc", "query=bash"], CONF) is None


def test_a_run_with_such_a_word_in_its_environment_is_a_run(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "python run.py model.size=")
    assert sizes_asked(["model=mlp"], CONF) is None


@pytest.mark.parametrize(
    ("typed", "given"),
    [
        (["model=mlp", "-m", "rank=1,2"], ["-m", "model=mlp", "rank=1,2"]),
        (["model=mlp", "--cfg", "job", "rank=1"], ["--cfg", "job", "model=mlp", "rank=1"]),
        (["model=mlp", "-cd", "DIR", "-m"], ["-cd", "DIR", "-m", "model=mlp"]),
        (["rank=1", "--info", "model=mlp"], ["--info", "rank=1", "model=mlp"]),
        (["rank=1", "--info", "plugins"], ["--info", "plugins", "rank=1"]),
        (["-m", "~logger", "+a=b"], ["-m", "~logger", "+a=b"]),
    ],
)
def test_flags_may_stand_behind_overrides(typed, given):
    assert flags_first(typed) == given


def test_m_in_the_middle_of_a_command_starts_a_sweep():
    words = ["data=digits", "-m", "model=mlp", "rank=1,2", "dry_run=true", "hydra.launcher.workers=1"]
    ran = run("run.py", *words, cwd=ROOT, env=dict(os.environ))
    assert ran.returncode == 0, ran.stderr
    assert "2 runs" in ran.stdout + ran.stderr
