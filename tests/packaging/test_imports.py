"""What is imported when, seen from a fresh process: the library alone, and a run up to its row."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lottalora.tasks.metrics import UNUSED

ROOT = Path(__file__).parents[2]
SUITE_ONLY = (
    "hydra",
    "omegaconf",
    "lightning",
    "pytorch_lightning",
    "pandas",
    "torchvision",
    "matplotlib",
    "sklearn",
)


def modules_after(code):
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.fixture(scope="module")
def modules_of_the_library():
    return modules_after("import sys; sys.path.insert(0, 'src'); import lottalora.scaffold")


@pytest.mark.parametrize("name", SUITE_ONLY)
def test_library_does_not_import(name, modules_of_the_library):
    assert "lottalora.scaffold" in modules_of_the_library
    assert name not in modules_of_the_library


def test_library_imports_nothing_of_the_suite(modules_of_the_library):
    ours = {name for name in modules_of_the_library if name.startswith("lottalora.")}
    assert {name for name in ours if not name.startswith("lottalora.scaffold")} == set()


def test_run_imports_none_of_the_packages_that_its_metrics_do_not_use(tmp_path):
    words = ["run.py", "data=digits", "model.size=tiny", "trainer.epochs=1", f"paths.results={tmp_path}"]
    run = f"import runpy, sys; sys.argv = {words!r}; runpy.run_path('run.py', run_name='__main__')"
    modules = modules_after(run)
    assert {"pytorch_lightning", "torchmetrics", "lottalora.training"} <= modules
    assert list(tmp_path.glob("rows/*/*/*.json"))
    assert modules & {*UNUSED, "pandas", "sklearn", "wandb", "torch._dynamo.eval_frame"} == set()


def test_plan_of_a_sweep_whose_kind_was_run_needs_no_torch():
    words = ["plan", "sweeps=table14", "seed=range(142,144)", "trainer.accelerator=cpu", "--json"]
    modules = modules_after(f"import lottalora.cli.main as m; m.main({words!r})")
    assert {"hydra", "lottalora.sweeps.plan"} <= modules
    assert "torch" not in modules


def test_metric_that_needs_a_package_left_out_says_so():
    modules = modules_after(
        "from lottalora.tasks.metrics import load_torchmetrics; load_torchmetrics()\n"
        "from torchmetrics.utilities.imports import _TORCHVISION_AVAILABLE as flag\n"
        "assert not flag and 'lottalora.tasks.metrics' in str(flag)\n"
        "from lightning_utilities.core.imports import RequirementCache, package_available\n"
        "assert RequirementCache('torchvision') and package_available('torchvision')"
    )
    assert "torchvision" not in modules


def test_plain_install_needs_torch_numpy_and_safetensors_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [re.match(r"[\w-]+", need)[0] for need in project["dependencies"]] == [
        "torch",
        "numpy",
        "safetensors",
    ]


def test_every_package_of_the_suite_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", pin) for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert {re.match(r"[\w-]+", need)[0].lower() for need in needs} <= pinned
