"""β as PyTorch's FSDP takes it: it shards no parameter without an axis."""

import torch
from torch import nn

from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.backbone import scaffold_layers


def prepare_for_fsdp(model: nn.Module, *, dtype: torch.dtype | None = None) -> None:
    """Give each β of a wrapped model an axis of length 1, in place, so that FSDP can shard it.

    Call it after `wrap`, and before `fully_shard` or `FullyShardedDataParallel`. Outputs, gradients and
    counts stay the same. A state of the model loads into one without the axis, and the other way round.

    These two shard what is trained, and each process holds every W_seed. `shard` shards W_seed.

    Args:
        model: a model on a scaffold.
        dtype: of every W_seed, which is a buffer: the `param_dtype` of `MixedPrecisionPolicy`, which casts
            parameters alone. None leaves it.

    Raises:
        ValueError: the model is not on a scaffold.
    """
    given: dict[int, nn.Parameter] = {}  # tied layers have one β
    for layer in scaffold_layers(model).values():
        if dtype is not None and layer.W_seed.dtype is not dtype:
            layer.W_seed = layer.W_seed.to(dtype)
        if isinstance(layer, LottaLayer) and layer.beta is not None and layer.beta.dim() == 0:
            beta = layer.beta
            longer = nn.Parameter(beta.detach().view(1), requires_grad=beta.requires_grad)
            layer.beta = given.setdefault(id(beta), longer)
