"""Convolutions on a frozen random kernel.

Letters: N examples, r rank, k the kernel's extents, g groups, * positions.
"""

import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.cost import Form
from lottalora.scaffold.draw import Source
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.path import choose_convolution

SKINNY = 64  # out · columns / (out + columns) up to which two paths lose to one kernel, for r → 0: measured


class LottaConv(LottaLayer):
    r"""A convolution whose kernel is random and never trained; the base of LottaConv1d, 2d and 3d.

    The kernel (out, in / g, *k) is one matrix (out, in / g · Πk), and B A is a change of that matrix: the
    adapter path is a convolution with A as r kernels, then a pointwise one with B. With g groups every group
    has the same A and its own rows of B. A small convolution adds β W_seed + s B A up first and is one
    convolution with the sum, which is the same map.

    Args:
        W_seed: the frozen kernel as a matrix, (out, in / g · Πk).
        adapter: rank, α and the options; see `Adapter`.
        like: the convolution that this one replaces; gives kernel_size, stride, padding, dilation, groups,
            padding_mode.
        bias: b, (out,): an `nn.Parameter` is trained, any other tensor is frozen; None for a layer without.
        source: where W_seed comes from, so that it can be drawn again; None for a kernel of one's own.

    Raises:
        ValueError: residual=True where the output has another shape than the input.

    Source: the paper, Section on convolutions: the kernel is reshaped to (out, in · k · k).
    """

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        *,
        like: nn.Conv1d | nn.Conv2d | nn.Conv3d,
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
        self._edges = like._reversed_padding_repeated_twice  # as F.pad takes them
        self._conv = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel_size) - 1]

    def _as_replaced(self, W: Tensor) -> Tensor:
        return W.view(-1, self.in_channels // self.groups, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if x.dim() == 1 + len(self.kernel_size):  # one example, (in, *)
            return self._forward(x.unsqueeze(0)).squeeze(0)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        features = (-1, *(1 for _ in self.kernel_size))  # (out,) broadcasts over (N, out, *)
        small = composed_is_faster(*self.W_seed.shape, self.adapter.rank)
        if choose_convolution(self, x, small=small) is Form.MERGE:
            h = self._convolve(x, self._renormalised(), self.groups)  # (N, in, *) → (N, out, *)
            return self.finish(x, h, features)
        frozen = self._convolve(x, self.W_seed, self.groups)
        update = None
        if self.A is not None:
            dropped = F.dropout(x, self.adapter.dropout, self.training)
            A = self.A.to(x.dtype).repeat(self.groups, 1)  # (g · r, in / g · Πk)
            B = self.B.to(x.dtype).view(*self.B.shape, *(1 for _ in self.kernel_size))  # (out, r, 1, …)
            update = self._conv(self._convolve(dropped, A, self.groups), B, groups=self.groups)
        return self.combine(x, frozen, update, features)

    def _convolve(self, x: Tensor, matrix: Tensor, groups: int) -> Tensor:
        kernel = self._as_replaced(matrix)
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = F.pad(x, self._edges, mode=self.padding_mode), 0
        return self._conv(x, kernel, None, self.stride, padding, self.dilation, groups)


class LottaConv1d(LottaConv):
    __doc__ = LottaConv.__doc__


class LottaConv2d(LottaConv):
    __doc__ = LottaConv.__doc__


class LottaConv3d(LottaConv):
    __doc__ = LottaConv.__doc__


def composed_is_faster(out: int, columns: int, rank: int) -> bool:
    """Whether one convolution with β W_seed + s B A takes a shorter step than the two paths.

    The sum pays the gradient of a dense kernel, out · columns a position. The paths pay two skinny
    convolutions and some passes over the output, which run far below a processor's peak: forward and
    backward with r = 8 and 3×3 kernels, they took 2.2 times as long at 16 channels, as long at 64 and 0.85
    times at 128; with pointwise kernels 1.3 times at 256 and 0.9 at 512. Without A the sum has one trained
    number, β, and its path is cheaper.
    """
    return rank > 0 and out * columns < (SKINNY + 2 * rank) * (out + columns)


def keeps_shape(conv: nn.Module) -> bool:
    """Whether a convolution's output has the shape of its input, whatever the input's extents."""
    if conv.in_channels != conv.out_channels or any(s != 1 for s in conv.stride):
        return False
    if isinstance(conv.padding, str):
        return conv.padding == "same"
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return all(2 * p == r for p, r in zip(conv.padding, reach, strict=True))
