"""The ordinary modules that layers of ours were before `wrap`, with other weights."""

from typing import cast

from torch import Tensor
from torch import cat
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.dense import DenseWeights
from lottalora.scaffold.layers.dense import Layer
from lottalora.scaffold.layers.dense import as_parameter
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.replaced import Replaced
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.vectors import frozen_vectors

PACKED = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
KINDS = ("_parameters", "_buffers", "_modules")
OURS = {"A", "B", "beta", "magnitude", "bias", "W_seed", "identity", "norm"}
OF_ATTENTION = {*SplitAttention.PROJECTIONS, "bias_k", "bias_v"}


def plain_layer(name: str, layer: Layer, weights: DenseWeights) -> nn.Module:
    """The layer that was there before `wrap`, with the dense weight.

    Args:
        name: the layer's name.
        layer: the layer of ours; it is not changed.
        weights: makes the dense weights.
    """
    module = _bare(layer, OURS)
    own: dict[str, nn.Parameter | None] = {"weight": weights.of(name, layer)}
    if "bias" not in vars(module) and not isinstance(layer, FrozenEmbedding):
        own["bias"] = as_parameter(layer.bias)
    module._parameters = own | module._parameters
    return module


def plain_attention(name: str, split: SplitAttention, weights: DenseWeights) -> nn.Module:
    """The `nn.MultiheadAttention` that was split, with the dense weights.

    Args:
        name: the attention's name.
        split: the attention of ours; it is not changed.
        weights: makes the dense weights.
    """
    module = _bare(split, OF_ATTENTION)
    inner = {each: getattr(split, each) for each in SplitAttention.PROJECTIONS}
    q, k, v, out = (_weight(dotted(name, each), layer, weights) for each, layer in inner.items())
    packed: dict[str, nn.Parameter | None]
    if module._qkv_same_embed_dim:
        packed = {"in_proj_weight": _packed([q, k, v]), **dict.fromkeys(PACKED)}
    else:
        packed = {**dict(zip(PACKED, (q, k, v), strict=True)), "in_proj_weight": None}
    biases = [layer.bias for layer in inner.values()]
    packed["in_proj_bias"] = None if biases[0] is None else _packed(biases[:3])
    further = {each: as_parameter(getattr(split, each)) for each in ("bias_k", "bias_v")}
    given = {each: bias for each, bias in further.items() if bias is not None}
    module._parameters = packed | given | module._parameters
    last = NonDynamicallyQuantizableLinear(out.shape[1], out.shape[0], bias=False, device="meta")
    last.weight = out
    last.register_parameter("bias", as_parameter(biases[3]))
    module._modules = {"out_proj": last.train(split.training)} | module._modules
    return module


def _weight(name: str, projection: nn.Module, weights: DenseWeights) -> nn.Parameter:
    if isinstance(projection, LottaLayer):
        return weights.of(name, projection)
    return cast(nn.Parameter, projection.weight)  # it was kept dense


def _packed(tensors: list[Tensor]) -> nn.Parameter:
    """The tensors, stacked along the rows."""
    whole = cat([tensor.detach() for tensor in tensors])
    return nn.Parameter(whole, requires_grad=any(tensor.requires_grad for tensor in tensors))


def _bare(module: nn.Module, ours: set[str]) -> nn.Module:
    """A module of the class from before `wrap`, with its settings, hooks and extra tensors, without weights.

    Args:
        module: the module of ours.
        ours: the names of its tensors and children that the class from before does not have.
    """
    before = cast(Replaced, module.replaced)
    bare = object.__new__(before.cls)
    state = vars(bare)
    state.update(before.attributes)
    state.update({name: value for name, value in vars(module).items() if "hook" in name and name in state})
    state["training"] = module.training
    for kind in KINDS:
        live = {name: value for name, value in getattr(module, kind).items() if name not in ours}
        state[kind] = before.further[kind] | live
    for name in set(frozen_vectors(module)) - ours:
        state["_parameters"][name] = as_parameter(state["_buffers"].pop(name))
    state["_non_persistent_buffers_set"] = (module._non_persistent_buffers_set - ours) | before.unsaved
    return bare
