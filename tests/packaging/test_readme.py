"""What README and docs show works: code, commands and the diffs for additions."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import run as forked

ROOT = Path(__file__).parents[2]
PAGES = {
    path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
}
README = PAGES["README.md"]


def blocks(language, *names):
    pages = [PAGES[name] for name in names or sorted(PAGES)]
    found = [
        re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE) for page in pages
    ]
    return [block for each in found for block in each]


def commands(start):
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return list(
        dict.fromkeys(line for line in lines if line.startswith(start) and not line.endswith("--help"))
    )


def python(*arguments, folder=ROOT):
    environment = os.environ | {"PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    if folder == ROOT:
        return forked(*arguments, cwd=folder, env=environment)
    return subprocess.run(  # another source tree
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def without_sweep(command):
    """The first run of a command: no -m, and of each list of values the first."""
    words = shlex.split(command)[2:]
    return [re.sub(r",.*", "", word) for word in words if word != "-m"]


def test_pages_have_the_blocks_that_these_tests_read():
    assert (len(blocks("python", "README.md")), len(blocks("python", "library.md"))) == (1, 9)
    assert len(blocks("diff")) == len(blocks("diff", "extending.md")) == 4
    assert len(commands("make")) == 2
    assert len(commands("python run.py")) >= 23
    assert len(commands("python -m lottalora")) >= 10


@pytest.mark.parametrize(("page", "printed"), [("README.md", "head.weight"), ("library.md", "loss")])
def test_python_blocks_of_a_page_run_in_order_in_one_process(page, printed):
    ran = python("-c", "".join(blocks("python", page)))
    assert ran.returncode == 0, ran.stderr
    assert printed in ran.stdout


@pytest.mark.parametrize("command", commands("python run.py"))
def test_run_command_is_accepted(command):
    words = [word for word in without_sweep(command) if not word.startswith("dry_run")]
    if any(word.startswith("sweeps=") for word in words):  # a file of sweeps/ has many runs, so it needs -m
        ran = python("-m", "lottalora", "plan", "--json", *words)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["runs"] > 1
        return
    ran = python("run.py", *words, "dry_run=json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["full"] > 0


def test_the_tour_trains_though_a_clone_holds_its_rows():
    runs = [line for block in blocks("sh", "tour.md") for line in block.splitlines() if "run.py" in line]
    assert len(runs) == 3
    assert all("paths.results=" in line.partition("#")[0] for line in runs)


@pytest.mark.parametrize("command", commands("python -m lottalora"))
def test_report_command_exists(command):
    ran = python(*shlex.split(command)[1:], "--help")
    assert ran.returncode == 0, ran.stderr


def test_every_make_target_that_is_named_exists():
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b(?=`|\s+#|\n)", "\n".join([contributing, *PAGES.values()])))
    assert {"demo", "test", "help", "lint", "report", "bench", "install", "docs"} <= named
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    assert named <= set(re.findall(r"^make ([a-z]+)", help_text, flags=re.MULTILINE))


def test_families_are_all_listed():
    from lottalora.scaffold import FAMILIES

    guide = PAGES["library.md"]
    table = guide[
        guide.index("| group | families |") : guide.index("`orthogonal` and `spectral_radius` need")
    ]
    listed = re.findall(r"`(\w+)`", table)
    assert len(listed) == len(set(listed))
    assert set(listed) == set(FAMILIES)


def test_additions_apply_as_diffs_and_train(tmp_path):
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore, symlinks=True)
    shutil.copy(ROOT / "run.py", tmp_path)
    for diff in blocks("diff"):
        outside = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}  # plain files, no repository
        applied = subprocess.run(
            ["git", "apply", "-"], cwd=tmp_path, env=outside, input=diff, capture_output=True, text=True
        )
        assert applied.returncode == 0, applied.stderr
    words = ["model=convnet", "data=stripes", "init=logistic", "rank=2", "trainer.epochs=2"]
    ran = python("run.py", *words, "paths.results=results", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("results/rows/**/*.json")]
    assert [(row["model"], row["data"], row["init"]) for row in rows] == [("convnet", "stripes", "logistic")]


@pytest.mark.parametrize("package", ["lottalora", "lottalora/scaffold"])
def test_map_in_contributing_names_every_room(package):
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where things are")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z_]+(?:/|\.py))`", text))
    rooms = {
        f"{path.name}/" for path in (ROOT / "src" / package).iterdir() if (path / "__init__.py").exists()
    }
    files = {path.name for path in (ROOT / "src" / package).glob("[a-z]*.py")}
    assert rooms | files <= named
