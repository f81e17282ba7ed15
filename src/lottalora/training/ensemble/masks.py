"""Dropout of an ensemble: each member has the masks that it would have alone."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lottalora.training.ensemble.layers import with_members_first


class OwnMasks(TorchFunctionMode):
    """Under `torch.vmap`, draws the masks of `F.dropout` for each member from its own generator.

    Args:
        member: an index, batched: so a mask is drawn for each member even where x is one for all.
        generators: of the members, with the states that PyTorch's global one has in single runs.
    """

    def __init__(self, member: Tensor, generators: Sequence[Generator]) -> None:
        super().__init__()
        self.member = member
        self.generators = generators

    def __torch_function__(
        self, func: Callable, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict | None = None
    ) -> object:
        if func is not F.dropout:
            return func(*args, **(kwargs or {}))
        return self.dropout(*args, **(kwargs or {}))

    def dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        return Masked.apply(x, self.member, p, self.generators)


class Masked(Function):
    """x times a mask for each member."""

    @staticmethod
    def forward(*_: object) -> Tensor:
        raise AssertionError("called under vmap alone")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        """Nothing is kept: the product has the gradient."""

    @staticmethod
    def vmap(
        info,  # noqa: ANN001  torch's
        in_dims: tuple,
        x: Tensor,
        member: Tensor,
        p: float,
        generators: Sequence[Generator],
    ) -> tuple[Tensor, int]:
        """The product, (K, …), and the place of K."""
        x = with_members_first(x, in_dims[0], info.batch_size)
        mask = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for own, generator in zip(mask, generators, strict=True):
            own.bernoulli_(1 - p, generator=generator)
        return x * mask.div_(1 - p), 0
