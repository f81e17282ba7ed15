"""A state as the bytes of a file."""

import io

import torch
from torch import Tensor
from torch import nn
from torch.utils._pytree import tree_map_only


def as_bytes(state: dict) -> memoryview:
    """Serialise a state with `torch.save`, of a view its own values and not all that it is a view of."""
    buffer = io.BytesIO()
    torch.save(tree_map_only(Tensor, with_own_storage, state), buffer)
    return buffer.getbuffer()


def with_own_storage(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it if it is a view of something larger."""
    plain = type(tensor) in (Tensor, nn.Parameter)
    return tensor.clone() if plain and tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
