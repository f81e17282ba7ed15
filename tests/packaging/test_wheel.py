"""The suite without its repository: what a wheel holds, and what its command does in any folder."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = ("data=digits", "model=mlp", "model.size=tiny", "trainer.epochs=1")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which the wheel of this tree was installed, and the wheel."""
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("installed")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    alone = ("--no-deps", "--disable-pip-version-check", "--quiet")
    pip("wheel", *alone, "--no-build-isolation", "--wheel-dir", tree / "dist", tree)
    (wheel,) = tree.glob("dist/*.whl")
    shutil.rmtree(tree / "src")
    pip("install", *alone, "--target", folder, wheel)
    return folder, wheel


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def lottalora(installed, tmp_path):
    """The installed command, in an empty folder."""
    folder, _ = installed

    def run(*words):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(folder / "bin" / "lottalora"), *words]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return run


def test_wheel_holds_every_file_of_the_package_the_config_and_the_sweeps(installed):
    _, wheel = installed
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(ROOT / "src")
        for path in (ROOT / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    conf = {
        Path("lottalora/conf") / path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")
    }
    sweeps = {Path("lottalora/conf/sweeps") / path.name for path in (ROOT / "sweeps").glob("*.yaml")}
    assert len(conf) > 70 and len(sweeps) > 15
    assert {Path(name) for name in held} == package | conf | sweeps


def test_command_of_the_wheel_runs_and_sweeps_in_any_folder(lottalora, tmp_path):
    lottalora("run", *RUN, "rank=8")
    lottalora("run", "-m", *RUN, "rank=8,4", "hydra.launcher.workers=1")
    rows = [json.loads(path.read_text()) for path in tmp_path.glob("results/rows/**/*.json")]
    assert sorted((row["model"], row["data"], row["rank"]) for row in rows) == [
        ("mlp", "digits", 4),
        ("mlp", "digits", 8),
    ]
    assert {row["commit"] for row in rows} == {""}
    assert os.listdir(tmp_path) == ["results"]
    stands = json.loads(lottalora("status", *RUN, "rank=8,4,2", "--json"))
    assert (stands["done"], stands["waiting"]) == (2, 1)


def test_command_of_the_wheel_plans_and_submits_the_sweeps_of_the_paper(lottalora):
    planned = json.loads(lottalora("plan", "sweeps=table14", "--json"))
    assert planned["runs"] == planned["waiting"] == 32
    script = lottalora("submit", *RUN, "rank=1,2", "--dry-run")
    assert f"{sys.executable} -P -m lottalora run" in script


def test_help_of_the_wheel_names_its_own_command(lottalora):
    page = lottalora("run", "--help")
    assert "lottalora run -m sweeps=table3" in page
    assert "run.py" not in page
