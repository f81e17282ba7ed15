"""A weight that is composed when its values are used."""

import types
from collections.abc import Callable
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.utils._pytree import tree_map_only

WITHOUT_VALUES = {
    getattr(Tensor, name).__get__
    for name in ("dtype", "shape", "device", "ndim", "layout", "is_cuda", "is_meta", "is_sparse", "itemsize")
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size}
REPARAMETRIZATIONS = ("torch.nn.utils.prune", "torch.nn.utils.weight_norm")


class LazyWeight(Tensor):
    """A tensor with shape, dtype and device, whose values `compose` makes whenever an operation takes it.

    T5 reads `wo.weight.dtype` in every layer, and `nn.TransformerEncoderLayer` gives the weights of its
    layers to a function that does not use them: neither has to pay for a product.

    Args:
        like: gives shape and dtype.
        device: of the values.
        compose: () → the values, with gradients.
    """

    compose: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls: type["LazyWeight"], like: Tensor, device: torch.device, compose: Callable[[], Tensor]
    ) -> "LazyWeight":
        lazy = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=device)
        lazy.compose = compose
        return lazy

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        with torch._C.DisableTorchFunctionSubclass():
            if func in WITHOUT_VALUES:
                return func(*args, **(kwargs or {}))
            args, kwargs = tree_map_only(LazyWeight, lambda lazy: lazy.compose(), (args, kwargs or {}))
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(
        cls, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        args, kwargs = tree_map_only(LazyWeight, lambda lazy: lazy.compose(), (args, kwargs or {}))
        return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict) -> Tensor:
        return self.compose().detach().clone()

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.compose().detach().__reduce_ex__(protocol)


def lazy_weight(
    like: Tensor, device: torch.device, compose: Callable[[], Tensor], trained: Sequence[Tensor]
) -> Tensor:
    """Return a `LazyWeight` through which gradients reach `trained`, also from a custom autograd function.

    PyTorch's operations take the composed values, with their graph. An `autograd.Function` takes the tensor
    as it is, so the tensor has a node of its own in the graph. Under a transform of `torch.func` the values
    are composed at once.
    """
    if torch._C._are_functorch_transforms_active():
        return compose()
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in trained):
        return Composition.apply(like, device, compose, *trained)
    return LazyWeight(like, device, compose)


class Composition(Function):
    """The node of a lazy weight: its gradient, taken through the composition."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, like: Tensor, device: torch.device, compose: Callable[[], Tensor], *trained: Tensor
    ) -> Tensor:
        ctx.compose, ctx.trained = compose, trained
        return LazyWeight(like, device, compose)

    @staticmethod
    def backward(ctx: FunctionCtx, dW: Tensor) -> tuple[Tensor | None, ...]:
        trained = [parameter for parameter in ctx.trained if parameter.requires_grad]
        with torch.enable_grad():
            W = ctx.compose()
        found = iter(torch.autograd.grad(W, trained, dW, create_graph=torch.is_grad_enabled()))
        return None, None, None, *(next(found) if p.requires_grad else None for p in ctx.trained)


def refuse_reparametrization(frame: types.FrameType) -> None:
    """A ValueError if it is one of PyTorch's functions that exchange a weight which reads ours."""
    if frame.f_globals.get("__name__") in REPARAMETRIZATIONS:
        raise ValueError(
            "The weight of a scaffold layer is composed from W_seed, A, B and β, so it cannot be pruned or "
            "normalised in place: do that before wrap, or call lottalora.scaffold.merge(model) first."
        )
