"""What PyTorch does around a layer while it traces, exports or replaces the layer's tensors."""

import contextlib
import sys
import types
from collections.abc import Iterator

import torch
from torch import Tensor

QUANTIZERS = ("torch.ao.quantization", "torchao.quantization")  # the modules of their tracers


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """A context manager under which `torch.jit.trace` records nothing: drawing is no part of the graph."""
    state = torch._C._get_tracing_state()
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # not in torch's stubs
    set_state(None)
    try:
        yield
    finally:
        set_state(state)


def inside_functional_call() -> bool:
    """Whether `torch.func.functional_call` is running, which puts the caller's tensors into modules."""
    return _is_called_from("torch.nn.utils.stateless")


def inside_export() -> bool:
    """Whether `torch.export` is running; it is imported at its first use only."""
    return "torch.export._trace" in sys.modules and _is_called_from("torch.export._trace")


def refuse_symbolic(x: Tensor, what: str) -> None:
    """Refuse a tensor without values, shape or dtype, with which `torch.fx` records what a module does.

    Args:
        x: the tensor, of any shape.
        what: the module, for the message.

    Raises:
        ValueError: it is such an input.
    """
    if isinstance(x, torch.fx.Proxy):
        raise ValueError(
            f"torch.fx cannot trace {what}: call torch.export.export, or lottalora.scaffold.merge(model) "
            "first."
        )


def refuse_unusual(x: Tensor) -> None:
    """Refuse a nested or quantized input, and the one by which `torch.ao.quantization` traces a model.

    Args:
        x: the input of a scaffold layer, of any shape.

    Raises:
        ValueError: it is one of the three.
    """
    if isinstance(x, Tensor) and x.is_nested:
        raise ValueError(
            "A layer on a scaffold takes no nested tensor: pad it, by torch.nested.to_padded_tensor(x, 0)."
        )
    tracer = type(getattr(x, "tracer", None)).__module__ if isinstance(x, torch.fx.Proxy) else ""
    if tracer.startswith(QUANTIZERS) or (isinstance(x, Tensor) and x.is_quantized):
        raise ValueError(
            "A layer on a scaffold is not quantized and takes no quantized input: call "
            "lottalora.scaffold.merge(model) before the model is quantized."
        )


def refuse_script() -> None:
    """Refuse to compile a scaffold layer to TorchScript.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "torch.jit.script cannot compile a layer on a scaffold: call torch.export.export or torch.jit.trace, "
        "or lottalora.scaffold.merge(model) first."
    )


def _is_called_from(module: str) -> bool:
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            return True
        frame = frame.f_back
    return False
