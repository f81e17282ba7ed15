"""A scaffold of which each process holds some rows: FSDP for W_seed, where each draws its own.

FSDP gathers the rows of a layer before the layer is called, and lets go of those of others after it; in the
backward pass again. What is trained is small beside it and stays whole in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.backbone import scaffold_layers
from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.own_rows import rows_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, mesh: DeviceMesh, *, methods: Sequence[str] = ()) -> None:
    """Let this process hold its rows of every W_seed only, on the mesh's kind of device.

    Rows are drawn from the seed, so the model may come from `wrap(…, drawn=False)`; nothing is sent. W_seed
    becomes a parameter without a gradient, as FSDP needs it, and stays out of `state_dict()`. Put the model
    into DDP afterwards for the gradients of what is trained. A layer has to be called: it has no whole
    `weight`.

    Args:
        model: with a scaffold.
        mesh: of one axis, the processes.
        methods: by which the model is called, beside `forward`.

    Raises:
        ValueError: a model without a scaffold.
    """
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.fsdp import register_fsdp_forward_method

    for layer in scaffold_layers(model).values():
        if isinstance(layer, LottaLayer) and layer.magnitude is not None:
            _start_magnitude(layer)
        _shard_layer(layer, mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(model.parameters()))  # the root, which has nothing else
    for name in methods:
        register_fsdp_forward_method(model, name)


def _start_magnitude(layer: LottaLayer) -> None:
    """DoRA's norms are those of whole rows, of all of them: draw them once."""
    if layer.source is not None:
        layer.redraw(layer.source)
    layer.reset_magnitude()


def _shard_layer(layer: LottaLayer | FrozenEmbedding, mesh: DeviceMesh) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    whole = layer.W_seed
    del layer.W_seed
    layer.W_seed = _frozen(torch.empty_like(whole, device="meta"))
    trained = {p for p in layer.parameters() if p is not layer.W_seed}
    fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    planned = layer.W_seed  # a DTensor without memory
    first, last = rows_of(planned)
    own = whole[first:last].clone() if layer.source is None else torch.empty(last - first, *whole.shape[1:])
    layer.W_seed = _frozen(
        DTensor.from_local(
            own.to(mesh.device_type, whole.dtype),
            mesh,
            planned.placements,
            run_check=False,
            shape=planned.shape,
            stride=planned.stride(),
        )
    )
    if layer.source is not None:
        layer.redraw(layer.source)
    layer.register_state_dict_post_hook(_leave_out)
    layer.register_load_state_dict_post_hook(_miss_nothing)


def _frozen(W_seed: Tensor) -> nn.Parameter:
    return nn.Parameter(W_seed, requires_grad=False)


def _leave_out(_: nn.Module, state: dict[str, Tensor], prefix: str, __: dict) -> None:
    state.pop(f"{prefix}W_seed", None)


def _miss_nothing(_: nn.Module, keys: nn.modules.module._IncompatibleKeys) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if key.rpartition(".")[2] != "W_seed"]
