"""The hook that defines torchvision's missing schemas, against a stand-in torchvision that needs them."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/repair_torchvision.py"
# As the real one: registers a kernel for an operator that its compiled extension should have defined.
STAND_IN = """
import torch

@torch.library.register_fake("torchvision::nms")
def fake(dets, scores, iou_threshold):
    return dets.new_empty(0, dtype=torch.int64)
"""


@pytest.fixture
def packages(tmp_path):
    spec = importlib.util.spec_from_file_location("repair_torchvision", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(STAND_IN)
    (tmp_path / "_torchvision_schemas.py").write_text(script.MODULE)
    return tmp_path


def run(packages, code):
    """In a Python without the hook that this environment may have: -S leaves out .pth files."""
    paths = [str(packages), *(path for path in sys.path if path)]
    script = f"import sys; sys.path[:] = {paths!r}\n{code}"
    return subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True)


def test_without_the_hook_the_import_fails_as_it_says(packages):
    ran = run(packages, "import torchvision")
    assert "operator torchvision::nms does not exist" in ran.stderr


def test_with_the_hook_the_import_works(packages):
    ran = run(packages, "import _torchvision_schemas; import torchvision; print(torchvision.fake.__name__)")
    assert (ran.returncode, ran.stdout) == (0, "fake\n"), ran.stderr


def test_hook_imports_torch_only_for_torchvision(packages):
    code = "import _torchvision_schemas, json, importlib.util; importlib.util.find_spec('torchvision')"
    ran = run(packages, f"{code}; print('torch' in sys.modules)")
    assert (ran.returncode, ran.stdout) == (0, "False\n"), ran.stderr


def test_script_refuses_a_python_outside_of_a_virtual_environment():
    base = Path(getattr(sys, "_base_executable", sys.executable))
    ran = subprocess.run([base, "-S", "-E", SCRIPT], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "This Python is in no virtual environment." in ran.stdout
