"""Convolutions on a frozen random kernel.

Letters: N examples, r rank, k the kernel's extents, g groups, * positions.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.path import choose_convolution
from lottalora.scaffold.layers.tracing import refuse_symbolic

SKINNY = 64  # measured: for r → 0, one kernel is faster than two paths if out · in / (out + in) is below this

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class LottaConv(LottaLayer):
    r"""A convolution whose kernel is random and never trained; the base of LottaConv1d, 2d and 3d.

    The kernel (out, in / g, *k) is read as a matrix (out, in / g · Πk), and B A updates that matrix. The
    adapter path is a convolution with A as r kernels, followed by a pointwise convolution with B. With g
    groups, all groups share A, and each has its own rows of B. A small convolution computes the kernel
    β W_seed + s B A first and convolves once, with the same result.

    Args:
        W_seed: the frozen kernel as a matrix, (out, in / g · Πk).
        adapter: rank, α and the options; see `Adapter`.
        like: the convolution to replace; its kernel_size, stride, padding, dilation, groups and padding_mode
            are taken over.
        bias: b, (out,): an `nn.Parameter` is trained, any other tensor is frozen; None for no bias.
        source: the source that W_seed was drawn from; None for a W_seed that was given.

    Raises:
        ValueError: residual=True and the output's shape differs from the input's.

    Source: the paper, Section on convolutions: the kernel is reshaped to (out, in · k · k).
    """

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        *,
        like: Convolution,
        bias: Tensor | None = None,
        source: Source | None = None,
    ) -> None:
        out = W_seed.shape[0]
        if adapter.residual and not keeps_shape(like):
            raise ValueError(f"residual=True needs an output of the input's shape; {like} changes it.")
        norm = nn.GroupNorm(1, out, device=W_seed.device, dtype=W_seed.dtype) if adapter.layer_norm else None
        super().__init__(W_seed, adapter, bias, source, norm)
        for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
            setattr(self, name, getattr(like, name))
        self.padding_mode = like.padding_mode
        self._edges = like._reversed_padding_repeated_twice  # in the order of F.pad
        self._conv: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel_size) - 1]

    def _as_replaced(self, W: Tensor) -> Tensor:
        return W.view(-1, self.in_channels // self.groups, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution, (N, in, *) → (N, out, *) or (in, *) → (out, *)."""
        self.check(x)
        if self.norm is None:  # all else takes one example, (in, *), as it is
            return self._forward(x)
        refuse_symbolic(x, "a convolution with layer_norm")
        if x.dim() == 1 + len(self.kernel_size):
            return self._forward(x.unsqueeze(0)).squeeze(0)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        features = (-1, *(1 for _ in self.kernel_size))  # (out,) broadcasts over (N, out, *)
        out, columns = self.W_seed.shape
        small = composed_is_faster(out, columns, self.adapter.rank)
        if choose_convolution(self, x, small=small) is Form.MERGE:
            h = self._convolve(x, self._renormalised(), self.groups)  # (N, in, *) → (N, out, *)
            return self.finish(x, h, features)
        frozen = self._convolve(x, self.W_seed, self.groups)
        update = None
        if self.A is not None and self.B is not None:
            dropped = F.dropout(x, self.adapter.dropout, self.training)
            A = self.A.to(x.dtype).repeat(self.groups, 1)  # (g · r, in / g · Πk)
            B = self.B.to(x.dtype).view(*self.B.shape, *(1 for _ in self.kernel_size))  # (out, r, 1, …)
            update = self._conv(self._convolve(dropped, A, self.groups), B, groups=self.groups)
        return self.combine(x, frozen, update, features)

    def _convolve(self, x: Tensor, matrix: Tensor, groups: int) -> Tensor:
        kernel = self._as_replaced(matrix)
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._edges, mode=self.padding_mode), 0
        return self._conv(x, kernel, None, self.stride, padding, self.dilation, groups)


class LottaConv1d(LottaConv):
    """A convolution in one dimension on a frozen random kernel.

    It maps (N, in, length) → (N, out, length), or both without N.
    The arguments are those of `LottaLinear`, with W_seed (out, in / groups · Πk), and `like`: the
    `nn.Conv1d` to replace.
    """


class LottaConv2d(LottaConv):
    """A convolution in two dimensions on a frozen random kernel.

    It maps (N, in, height, width) → (N, out, height, width), or both without N.
    The arguments are those of `LottaLinear`, with W_seed (out, in / groups · Πk), and `like`: the
    `nn.Conv2d` to replace.
    """


class LottaConv3d(LottaConv):
    """A convolution in three dimensions on a frozen random kernel.

    It maps (N, in, depth, height, width) → (N, out, depth, height, width), or both without N.
    The arguments are those of `LottaLinear`, with W_seed (out, in / groups · Πk), and `like`: the
    `nn.Conv3d` to replace.
    """


def convolution_like(like: Convolution) -> type[LottaConv]:
    """The class of ours with as many dimensions as a convolution, or as another class with its attributes."""
    return (LottaConv1d, LottaConv2d, LottaConv3d)[len(like.kernel_size) - 1]


def composed_is_faster(out: int, columns: int, rank: int) -> bool:
    """Whether a training step with the one kernel β W_seed + s B A is faster than one with two paths.

    The one kernel costs the gradient of a dense kernel, out · columns per position. The two paths cost two
    skinny convolutions and some passes over the output, which run far below a processor's peak. Measured,
    forward and backward with r = 8, time of two paths / time of one kernel: for 3×3 kernels 2.2 at 16
    channels, 1 at 64 and 0.85 at 128; for pointwise kernels 1.3 at 256 and 0.9 at 512. With r = 0 the two
    paths are faster, since β alone is trained.

    Args:
        out: rows of the kernel as a matrix.
        columns: its columns, in / groups · Πk.
        rank: r.
    """
    return rank > 0 and out * columns < (SKINNY + 2 * rank) * (out + columns)


def keeps_shape(conv: Convolution) -> bool:
    """Whether a convolution's output has the shape of its input, for every size of the input."""
    if conv.in_channels != conv.out_channels or any(s != 1 for s in conv.stride):
        return False
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return all(2 * p == r for p, r in zip(conv.padding, reach, strict=True))
