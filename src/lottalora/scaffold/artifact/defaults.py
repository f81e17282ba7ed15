"""What the caller has set in PyTorch, put aside while a model is built or its probe is computed."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager

import torch
from torch import nn


class _Builders:
    """How many are building in float32, and the default dtype from before the first of them."""

    lock = threading.Lock()
    count = 0
    before = torch.float32


@contextmanager
def float32_on_the_cpu() -> Iterator[None]:
    """Build in float32 on the CPU. The default dtype is the process's, so the last of several restores it."""
    with _Builders.lock:
        if _Builders.count == 0:
            _Builders.before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
        _Builders.count += 1
    try:
        with torch.device("cpu"):
            yield
    finally:
        with _Builders.lock:
            _Builders.count -= 1
            if _Builders.count == 0:
                torch.set_default_dtype(_Builders.before)


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Compute in the dtypes of the model's own tensors."""
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield
