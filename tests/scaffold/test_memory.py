"""Training keeps no memory from step to step."""

import ctypes
import gc

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import set_fused
from lottalora.scaffold import wrap

STEPS, MOST = 30, 2e6  # bytes; a kernel that oneDNN compiles takes half a megabyte


class Held(ctypes.Structure):
    """What glibc's `mallinfo2` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena free_blocks fast_blocks maps mapped most fast used free top".split()
    ]


def held() -> int:
    """Bytes that this process has asked for and not given back."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("counts memory with glibc 2.33")
    libc.mallinfo2.restype = Held
    found = libc.mallinfo2()
    return found.used + found.mapped


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", ["off", "add", "accumulate", "compose", "merge"])
@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_a_step_of_training_leaves_nothing_in_memory(layer, form, precision):
    torch.manual_seed(0)
    if layer == "linear":
        model, x = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 32)), torch.randn(96, 64)
    else:
        model, x = nn.Sequential(nn.Conv2d(8, 64, 3), nn.Conv2d(64, 32, 1)), torch.randn(16, 8, 6, 6)
    wrap(model, Scaffold(rank=4))
    set_fused(model, form)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
                loss = model(x).float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    train(3)
    before = held()
    train(STEPS)
    assert held() - before < MOST
