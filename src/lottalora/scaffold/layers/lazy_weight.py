"""A weight that is computed when its values are used."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx
from torch.utils._pytree import tree_leaves
from torch.utils._pytree import tree_map_only

WITHOUT_VALUES = {
    getattr(Tensor, name).__get__
    for name in ("dtype", "shape", "device", "ndim", "layout", "is_cuda", "is_meta", "is_sparse", "itemsize")
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.element_size}
WRITING = {Tensor.__setitem__, getattr(Tensor, "data").__set__}  # noqa: B009  # mypy takes it for a tensor
VIEWS = {Tensor.detach, getattr(Tensor, "data").__get__}  # noqa: B009  # see above; to write, as a rule
PLAIN = {Tensor, torch.nn.Parameter, int, float, bool, str, type(None)}  # arguments that hold no lazy weight
OPERATORS = {f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")}  # W += …
HOOKS = {Tensor.register_hook, Tensor.retain_grad, Tensor.register_post_accumulate_grad_hook}
FREEZING = {Tensor.requires_grad_, getattr(Tensor, "requires_grad").__set__}  # noqa: B009  # see above


class LazyWeight(Tensor):
    """A tensor of known shape, dtype and device whose values are computed when an operation needs them.

    T5 reads `wo.weight.dtype` in every layer, and `nn.TransformerEncoderLayer` passes the weights of its
    layers to a function that does not use them. Neither should cost a matrix product.

    Args:
        like: a tensor of the weight's shape and dtype.
        device: the device of the values.
        compose: () → the values, of the shape of `like`, with gradients.
    """

    compose: Callable[[], Tensor]
    _is_hf_initialized = True  # Hugging Face's start values are for weights that no seed gives

    @staticmethod
    def __new__(
        cls: type["LazyWeight"], like: Tensor, device: torch.device, compose: Callable[[], Tensor]
    ) -> "LazyWeight":
        """Make a tensor without values that has the shape and dtype of `like`."""
        lazy = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=device)
        lazy.compose = compose
        return lazy

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        with torch._C.DisableTorchFunctionSubclass():
            if func in WITHOUT_VALUES:
                return func(*args, **(kwargs or {}))
            if func in VIEWS:
                lazy = args[0]
                return LazyWeight(lazy, lazy.device, _without_gradient(lazy.compose))
            kwargs = kwargs or {}
            _refuse_writing(func, args, kwargs)
            _refuse_hooks(func)
            composed: list[Tensor] = []
            args = tuple([_composed(each, composed) for each in args])
            kwargs = {name: _composed(each, composed) for name, each in kwargs.items()}
            return _read_only(func(*args, **kwargs), composed)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a disabled hook there, no classmethod
        cls,
        func: Callable[..., object],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        args, kwargs = tree_map_only(LazyWeight, lambda lazy: lazy.compose(), (args, kwargs or {}))
        return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, object]) -> Tensor:
        return self.compose().detach().clone()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = self.compose().detach().__reduce_ex__(protocol)
        return reduced


def _composed(argument: object, composed: list[Tensor]) -> object:
    """An argument of a function with values in place of each lazy weight in it.

    PyTorch's walk through a tree of arguments takes longer than composing a small weight, so the usual
    arguments are not walked through.

    Args:
        argument: the argument.
        composed: the list to which the values are added.
    """
    if type(argument) is LazyWeight:
        composed.append(argument.compose())
        return composed[-1]
    if type(argument) in PLAIN:
        return argument
    return tree_map_only(LazyWeight, lambda lazy: _composed(lazy, composed), argument)


def _read_only(result: object, composed: Sequence[Tensor]) -> object:
    """What a function returned, where views of composed values without a gradient refuse writing as well.

    Args:
        result: what it returned.
        composed: the values that it was given.
    """
    if type(result) is Tensor and result.requires_grad:  # the usual case
        return result
    if isinstance(result, np.ndarray):
        result.setflags(write=False)  # it may share the memory of the values, where writing would be lost
        return result
    own = {_memory(W) for W in composed} - {0}

    def read_only(view: Tensor) -> Tensor:
        if view.requires_grad or _memory(view) not in own:
            return view
        return LazyWeight(view, view.device, lambda: view)

    return tree_map_only(Tensor, read_only, result) if own else result


def _memory(tensor: Tensor) -> int:
    """Where the memory of a tensor begins; 0 for one without memory of its own."""
    return tensor.untyped_storage().data_ptr() if type(tensor) is Tensor and not tensor.is_meta else 0


def _without_gradient(compose: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return lambda: compose().detach()


def _refuse_writing(func: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse functions that write into a lazy weight, such as those of `nn.init`, or freeze it: that is lost.

    Raises:
        ValueError: it is such a function.
    """
    name = getattr(func, "__name__", "")
    if func in FREEZING:
        raise ValueError(
            "requires_grad of a weight that is composed from W_seed, A, B and β cannot be set: call "
            "requires_grad_ of the layer, or of its A, B and β."
        )
    in_place = name.endswith("_") and not name.endswith("__") or name in OPERATORS or func in WRITING
    written = args[0] if args and in_place else kwargs.get("tensor" if in_place else "out")
    if kwargs.get("inplace") or kwargs.get("max_norm") is not None:
        written = args, kwargs  # F.relu writes into its input then, F.embedding into its weight
    if written is not None and any(isinstance(each, LazyWeight) for each in tree_leaves(written)):
        raise ValueError(
            f"{name} would write into a weight that is composed from W_seed, A, B and β: write into these, "
            "or set weights before wrap."
        )


def _refuse_hooks(func: Callable[..., object]) -> None:
    """Refuse hooks on the gradient of a lazy weight: the next read of it gives another tensor.

    Raises:
        ValueError: it is such a function.
    """
    if func in HOOKS:
        raise ValueError(
            f"{getattr(func, '__name__', 'A hook')} of a weight that is composed from W_seed, A, B and β has "
            "no effect, since it is computed whenever it is read: call it on A, B or β of the layer."
        )


def lazy_weight(
    like: Tensor, device: torch.device, compose: Callable[[], Tensor], trained: Sequence[Tensor]
) -> Tensor:
    """Return a `LazyWeight` through which gradients reach `trained`, even from a custom autograd function.

    PyTorch's operations use the composed values and their graph. An `autograd.Function` uses the tensor
    itself, so the tensor has its own node in the graph. Under a transform of `torch.func`, forward-mode
    derivatives or `torch.jit.trace` the values are composed at once.

    Args:
        like: a tensor of the weight's shape and dtype.
        device: the device of the values.
        compose: () → the values, of the shape of `like`, with gradients.
        trained: the parameters that `compose` uses, of any shapes.
    """
    if (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    ):
        return compose()
    if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in trained):
        weight: Tensor = Composition.apply(  # type: ignore[no-untyped-call]  # torch's
            like, device, compose, *trained
        )
        return weight
    return LazyWeight(like, device, compose)


class Context(FunctionCtx):
    """What the forward pass of `Composition` leaves for the backward pass."""

    compose: Callable[[], Tensor]
    trained: tuple[Tensor, ...]


class Composition(Function):
    """The autograd node of a lazy weight, which computes gradients by composing the weight again."""

    @staticmethod
    def forward(
        ctx: Context, like: Tensor, device: torch.device, compose: Callable[[], Tensor], *trained: Tensor
    ) -> Tensor:
        """A lazy weight of the shape of `like`."""
        ctx.compose, ctx.trained = compose, trained
        return LazyWeight(like, device, compose)

    @staticmethod
    def backward(ctx: Context, dW: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of `trained`, each of its parameter's shape; None for the other arguments.

        Args:
            ctx: what `forward` left.
            dW: the gradient of the weight, of its shape.
        """
        trained = [parameter for parameter in ctx.trained if parameter.requires_grad]
        with torch.enable_grad():
            W = ctx.compose()
        found = iter(torch.autograd.grad(W, trained, dW, create_graph=torch.is_grad_enabled()))
        return None, None, None, *(next(found) if p.requires_grad else None for p in ctx.trained)
