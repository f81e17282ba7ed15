"""The Triton kernels compute what the CPU does, in Triton's interpreter where there is no GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton: pip install triton")
def test_kernels_agree_with_the_cpu():
    done = run_python("-m", "tests.scaffold.kernel_checks")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": right on ") == 5


def test_kernels_without_triton_say_what_to_install():
    """And the rest of the library does not import it."""
    hidden = "import sys; sys.modules['triton'] = None; import lottalora.scaffold"
    done = run_python("-c", f"{hidden}; import lottalora.scaffold.kernels")
    assert "kernels needs Triton: pip install 'lottalora[triton]'." in done.stderr.splitlines()[-1]


def run_python(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), *sys.path))}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
