"""The tensors of a model that go into a file, and the buffers that do not."""

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.artifact.precision import SCALE
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.whole_model.backbone import beta_values
from lottalora.scaffold.wrapping.matrices import dotted

METADATA = "__metadata__"  # of safetensors, which has no tensor of that name
W_SEED, PROBE = "W_seed/", "probe/"  # what the names of tensors that are no part of the state begin with


def state_names(model: nn.Module) -> dict[str, Tensor]:
    """`state_dict()` without the records of identity, which the header replaces."""
    ours = [name for name, module in model.named_modules() if isinstance(module, Frozen)]
    identities = {dotted(name, "identity") for name in ours}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in identities}


def tensors_and_ties(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors to write, each once, and alias → name of those that are tied."""
    first: dict[int, str] = {}
    tied = {}
    everything = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    held = {name: id(tensor) for name, tensor in everything}
    betas = {dotted(name, "beta") for name in beta_values(model)}  # of stacks they are numbered, and stay
    tensors = {}
    for name, tensor in state_names(model).items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"The model's state holds {name!r}, which is no tensor, so it cannot be saved.")
        original = first.setdefault(held.get(name, id(tensor)), name)
        if original == name:
            tensors[name] = tensor.view(()) if name in betas else tensor
        else:
            tied[name] = original
    taken = [name for name in tensors if name.startswith((W_SEED, PROBE, SCALE)) or name == METADATA]
    if taken:
        raise ValueError(f"The model's state holds {taken[0]!r}; names of that beginning are the format's.")
    return tensors, tied


def buffers_left_out(model: nn.Module) -> dict[str, Tensor]:
    """The buffers of real numbers that the state leaves out, by name, without W_seed."""
    return {
        dotted(layer, name): buffer
        for layer, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and buffer.dtype in DTYPES.values()
        if not (isinstance(module, Frozen) and name == "W_seed")
    }


def dtypes_left_out(model: nn.Module, matrices: list[MatrixRecord]) -> dict[str, str]:
    """The dtypes of those buffers; empty if they and every W_seed are float32, as builders make them."""
    found = {name: dtype_name(buffer.dtype) for name, buffer in buffers_left_out(model).items()}
    all_dtypes = {*found.values(), *(matrix.dtype for matrix in matrices)}
    return {} if all_dtypes == {"float32"} else found


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype in the words of the header, such as "float32"."""
    return str(dtype).removeprefix("torch.")
