"""FSDP for the frozen weights: each process holds some rows of every W_seed and draws them itself.

FSDP gathers all rows of a layer before its forward and its backward pass, and frees those of other processes
afterwards. The trained parameters are few and stay whole in every process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import cast

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.local_rows import rows_of
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.agreement import refuse_other_sources
from lottalora.scaffold.whole_model.backbone import scaffold_layers

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, mesh: DeviceMesh, *, methods: Sequence[str] = ()) -> None:
    """Distribute the rows of every W_seed over processes, in place.

    Each process draws its rows from the seed, so nothing is sent and the model may come from
    `wrap(…, drawn=False)`. W_seed becomes a parameter without a gradient, as FSDP requires, and stays out of
    `state_dict()`. A sharded layer can be called, but its `weight` cannot be read.

    Afterwards `DDP(model, init_sync=False, broadcast_buffers=False)` averages the gradients of the trained
    parameters. DDP would send the rows of each process to all others, and fails at that. Without its first
    synchronisation, trained parameters must start equal in all processes, as from one `torch.manual_seed`.

    Args:
        model: a model on a scaffold.
        mesh: the processes, on one axis; W_seed moves to its type of device.
        methods: names of further methods by which the model is called, beside `forward`.

    Raises:
        ValueError: the model is not on a scaffold, or the processes have different ones.
    """
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.fsdp import register_fsdp_forward_method

    layers = scaffold_layers(model).values()
    refuse_other_sources([layer.source for layer in layers], mesh)
    for layer in layers:
        if isinstance(layer, LottaLayer) and layer.magnitude is not None:
            _start_magnitude(layer)
        _shard_layer(layer, mesh)
    fully_shard(model, mesh=mesh, ignored_params=set(model.parameters()))  # the root holds no W_seed
    for name in methods:
        register_fsdp_forward_method(model, name)


def _start_magnitude(layer: LottaLayer) -> None:
    """Compute DoRA's magnitudes while W_seed is whole: they are the norms of all its rows."""
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
    planned = cast(DTensor, layer.W_seed)  # on the meta device
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
    module: nn.Module = layer
    module.register_state_dict_post_hook(_leave_out)
    module.register_load_state_dict_post_hook(_miss_nothing)


def _frozen(W_seed: Tensor) -> nn.Parameter:
    return nn.Parameter(W_seed, requires_grad=False)


def _leave_out(_: nn.Module, state: dict[str, Tensor], prefix: str, __: dict[str, object]) -> None:
    state.pop(f"{prefix}W_seed", None)


def _miss_nothing(_: nn.Module, keys: nn.modules.module._IncompatibleKeys) -> None:
    keys.missing_keys[:] = [key for key in keys.missing_keys if key.rpartition(".")[2] != "W_seed"]
