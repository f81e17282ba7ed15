"""The Makefile tells what it can do, refuses an old Python, and does not install twice."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def make(*arguments, folder=ROOT):
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(["make", *arguments], cwd=folder, env=inherited, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "scripts/repair_torchvision.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("target", ["help", "demo", "test", "lint", "report", "docs", "bench", "smoke"])
def test_help_lists_the_target_with_what_it_does(target):
    assert re.search(rf"^make {target} +\w.{{10,}}$", make("help").stdout, flags=re.MULTILINE)


def test_help_is_what_a_bare_make_prints():
    assert make().stdout == make("help").stdout != ""


def test_python_that_is_too_old_is_refused_in_one_sentence(copy):
    old = copy / "python3.9"
    executable(old, 'case "$1" in --version) echo Python 3.9.18;; *) exit 1;; esac')
    ran = make("install", f"PYTHON={old}", folder=copy)
    assert ran.returncode != 0
    assert re.search(r"needs Python 3\.11, 3\.12 or 3\.13, and .*python3\.9 is Python 3\.9\.18\.", ran.stdout)
    assert not (copy / ".venv").exists()


def test_second_install_does_nothing_until_a_pin_changes(copy):
    executable(copy / ".venv/bin/python", f'echo "$@" >> {copy}/calls')  # in place of the interpreter
    assert make("install", folder=copy).returncode == 0
    first = (copy / "calls").read_text()
    assert "torch==2.13.0 torchvision==0.28.0 -e .[suite]" in first
    assert make("install", folder=copy).returncode == 0
    assert (copy / "calls").read_text() == first
    stamp = (copy / ".venv/suite.stamp").stat().st_mtime
    os.utime(copy / "constraints.txt", (stamp + 10, stamp + 10))
    assert make("install", folder=copy).returncode == 0
    assert (copy / "calls").read_text() == first * 2


def test_no_index_is_named_in_the_set_up():
    for name in ("Makefile", "constraints.txt", "pyproject.toml", ".ci/run", "scripts/repair_torchvision.py"):
        assert not re.search(r"index-url|find-links|https?://", (ROOT / name).read_text()), name
