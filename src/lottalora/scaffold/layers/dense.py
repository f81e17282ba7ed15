"""The dense weights that layers with a W_seed are equal to, as ordinary parameters."""

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.linear import LottaLinear

TRAINED = ("A", "B", "beta", "magnitude")
Layer = LottaLayer | FrozenEmbedding


class DenseWeights:
    r"""The dense weights of a model's layers, each a parameter; layers that are tied get the same one.

    .. math:: W = \beta W_{seed} + s\, B A \quad\text{after DoRA}

    W is computed in float64 (float32 on devices without it) and rounded once, to the layer's dtype.
    """

    def __init__(self) -> None:
        self.deviations: dict[str, float] = {}  # max |rounded W − W| / max |W|, by the layer's name
        self._made: dict[object, list[tuple[Layer, nn.Parameter]]] = {}

    def of(self, name: str, layer: Layer) -> nn.Parameter:
        """The weight of a layer, in the shape of the weight that it replaced.

        Args:
            name: the layer's name.
            layer: the layer.
        """
        alike = self._made.setdefault(_trained_parts(layer), [])
        for other, weight in alike:
            if _is_transposed(layer) == _is_transposed(other) and _same_scaffold(layer, other):
                return weight
        exact = exact_weight(layer)
        rounded = exact.to(layer.W_seed.dtype).contiguous()
        self.deviations[name] = _deviation(rounded, exact)
        trains = [p for p in layer.parameters() if p is not getattr(layer, "bias", None)]
        weight = nn.Parameter(rounded, requires_grad=any(p.requires_grad for p in trains))
        alike.append((layer, weight))
        return weight


def exact_weight(layer: Layer) -> Tensor:
    """W of a layer in float64, or in float32 where there is none, in the shape of the weight it replaced."""
    if isinstance(layer, FrozenEmbedding):
        return _exact(layer.W_seed)
    twin = object.__new__(type(layer))  # it computes the layer's own equation with exact tensors
    vars(twin).update(vars(layer))
    for kind in ("_parameters", "_buffers"):
        tensors = getattr(layer, kind).items()
        vars(twin)[kind] = {name: None if tensor is None else _exact(tensor) for name, tensor in tensors}
    return twin._as_replaced(twin._renormalised())


def as_parameter(tensor: Tensor | None) -> nn.Parameter | None:
    """The tensor if it is a parameter; of a buffer, of any shape, a parameter without a gradient."""
    if tensor is None or isinstance(tensor, nn.Parameter):
        return tensor
    return nn.Parameter(tensor.detach(), requires_grad=False)


def _exact(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().to(torch.float32 if tensor.device.type == "mps" else torch.float64)


def _trained_parts(layer: Layer) -> object:
    """What tied layers have in common: A, B, β and m; without them, one draw of one `wrap`, or W_seed."""
    parts = [getattr(layer, name, None) for name in TRAINED]
    if any(part is not None for part in parts):
        return tuple(id(part) for part in parts)
    source, wrapping = layer.source, layer.wrapping
    if source is None or wrapping is None:
        return layer.W_seed.data_ptr()
    return id(wrapping), source.seed, source.redraw, source.name  # a name is drawn once in a `wrap`


def _is_transposed(layer: Layer) -> bool:
    return isinstance(layer, LottaLinear) and layer.transposed


def _same_scaffold(one: Layer, other: Layer) -> bool:
    scales = [layer.adapter.scale if isinstance(layer, LottaLayer) else 0.0 for layer in (one, other)]
    W, V = one.W_seed, other.W_seed
    return scales[0] == scales[1] and (W.device, W.dtype) == (V.device, V.dtype) and torch.equal(W, V)


def _deviation(rounded: Tensor, exact: Tensor) -> float:
    if exact.numel() == 0:
        return 0.0
    largest = exact.abs().max().item()
    return (rounded.to(exact.dtype) - exact).abs().max().item() / largest if largest else 0.0
