r"""A linear layer whose frozen weight is ± c, kept at one bit a weight.

.. math:: h = \beta c\, S x + s\, B A x + b, \qquad g = c\, S^\top dh, \quad u = s\, B^\top dh

.. math:: dx = \beta g + A^\top u, \quad dA = u x^\top, \quad dB = s\, dh\, (A x)^\top, \quad
          d\beta = \langle g, x \rangle

S (out, in) holds the signs of the family `binary`, c is its 1/√in. Bit j of word k in a row of the packed
matrix is 1 where column 32 k + j is positive. A program of the kernel makes one tile of the output; it turns
bits into ± 1 in registers, so a weight costs an eighth of a byte of memory traffic, not two.

Products are summed in float32. In float32 they use no TF32.

Letters: n rows of x, r rank, K and N the inner and outer axis of the product with S or Sᵀ.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lottalora.scaffold.fused.blocks import with_axes_of

BITS = 32
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILE = {"ROWS": 64, "COLUMNS": 64, "INNER": 32}


def pack(W: Tensor) -> tuple[Tensor, float]:
    """The signs of W and the one magnitude of its entries.

    Args:
        W: (out, in), every entry c or −c.

    Returns:
        Words, (out, ⌈in / 32⌉) int32, and c.

    Raises:
        ValueError: the entries have more than one magnitude, or it is zero.
    """
    magnitude = W.abs().max()
    if not magnitude or not (W.abs() == magnitude).all():
        raise ValueError("W has entries of several magnitudes: only the family binary can be packed.")
    positive = torch.nn.functional.pad(W > 0, (0, -W.shape[1] % BITS)).view(len(W), -1, BITS)
    places = torch.arange(BITS, device=W.device)
    words = torch.stack([(row.long() << places).sum(-1) for row in positive])  # below 2³²
    return words.to(torch.int32), magnitude.item()


def unpack(words: Tensor, columns: int, magnitude: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """W, (out, in), from what `pack` returned; columns is in."""
    bits = (words[..., None] >> torch.arange(BITS, device=words.device)) & 1  # (out, words, 32)
    return ((2 * bits - 1).flatten(1)[:, :columns] * magnitude).to(dtype)


def sign_linear(
    x: Tensor,
    words: Tensor,
    magnitude: float,
    beta: Tensor | None = None,
    A: Tensor | None = None,
    B: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: float = 1.0,
) -> Tensor:
    """h = β c S x + s B A x + b, with gradients for x, β, A, B and b.

    Args:
        x: (*, in), float32, bfloat16 or float16, on the device of all others.
        words: S, (out, ⌈in / 32⌉) int32; see `pack`.
        magnitude: c.
        beta: β, or None for 1.
        A: (r, in), or None for a frozen layer without an adapter.
        B: (out, r), or None.
        bias: b, (out,), or None.
        scale: s.

    Returns:
        h, (*, out), in the dtype of x.

    Raises:
        ValueError: x has another dtype, or does not fit the words.
    """
    if x.dtype not in DTYPES:
        raise ValueError(f"sign_linear computes float32, bfloat16 and float16, not {x.dtype}.")
    if words.shape[1] != -(-x.shape[-1] // BITS):
        raise ValueError(
            f"{words.shape[1]} words a row do not fit {x.shape[-1]} inputs: pack W of (out, in)."
        )
    h: Tensor = _SignLinear.apply(x, words, magnitude, beta, A, B, bias, scale)  # type: ignore[no-untyped-call]
    return h


class _SignLinear(Function):
    """The layer as one node of the graph."""

    @staticmethod
    def forward(ctx, x, words, magnitude, beta, A, B, bias, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        """h; the arguments are those of `sign_linear`."""
        ctx.save_for_backward(x, words, beta, A, B)
        ctx.magnitude, ctx.scale = magnitude, scale
        flat = x.reshape(-1, x.shape[-1])  # (n, in)
        low = right = None
        if A is not None:
            low, right = flat @ A.to(x.dtype).T, (scale * B).to(x.dtype).T  # (n, r), (r, out)
        h = _product(flat, words, len(words), _gain(magnitude, beta, x), low, right, bias, across=True)
        return with_axes_of(x, h)

    @staticmethod
    @once_differentiable
    def backward(ctx, dh):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        """The gradients in the order of the arguments of `sign_linear`."""
        x, words, beta, A, B = ctx.saved_tensors
        wants_x, _, _, wants_beta, wants_A, wants_B, wants_bias, _ = ctx.needs_input_grad
        shape, columns = x.shape, x.shape[-1]
        x, dh = x.reshape(-1, columns), dh.reshape(-1, len(words)).contiguous()
        dx: Tensor | None = None
        dbeta = dA = dB = None
        if wants_x or wants_beta:
            g = _product(dh, words, columns, _gain(ctx.magnitude, None, x), None, None, None, across=False)
            dbeta = (g.float() * x.float()).sum().to(beta.dtype) if wants_beta else None
            dx = g if beta is None else beta.to(g.dtype) * g
        if A is not None:
            u = ctx.scale * (dh @ B.to(x.dtype))  # (n, r)
            dA = (u.T @ x).to(A.dtype) if wants_A else None
            dB = (ctx.scale * (dh.T @ (x @ A.to(x.dtype).T))).to(B.dtype) if wants_B else None
            dx = torch.addmm(dx, u, A.to(x.dtype)) if dx is not None else None
        dx = dx.view(shape) if wants_x and dx is not None else None
        return dx, None, None, dbeta, dA, dB, dh.sum(0) if wants_bias else None, None


def _gain(magnitude: float, beta: Tensor | None, like: Tensor) -> Tensor:
    """β c as one float32 on the device, so that β is never read on the host."""
    if beta is None:
        return torch.full((1,), magnitude, device=like.device)
    return (beta.detach().float() * magnitude).reshape(1)


def _product(
    x: Tensor,
    words: Tensor,
    width: int,
    gain: Tensor,
    low: Tensor | None,
    right: Tensor | None,
    bias: Tensor | None,
    *,
    across: bool,
) -> Tensor:
    """gain · x M + low · right + bias, (n, width), with M = Sᵀ if across, else S."""
    x, (rows, inner) = x.contiguous(), x.shape
    rank = 0 if low is None else low.shape[1]
    y = x.new_empty(rows, width)
    padded = max(16, triton.next_power_of_2(rank)) if rank else 0
    grid = triton.cdiv(rows, TILE["ROWS"]), triton.cdiv(width, TILE["COLUMNS"])
    low, right = (x if part is None else part.contiguous() for part in (low, right))
    with torch.cuda.device(x.device if x.is_cuda else -1):
        _tile[grid](
            *(y, x, words, gain, low, right, x if bias is None else bias),
            *(rows, width, words.stride(0), rank),
            **{"inner": inner, "across": across, "biased": bias is not None, "RANK": padded, **TILE},
        )
    return y


@triton.jit  # type: ignore[untyped-decorator]
def _tile(  # type: ignore[no-untyped-def]  # noqa: ANN202
    y,  # noqa: ANN001
    x,  # noqa: ANN001
    words,  # noqa: ANN001
    gain,  # noqa: ANN001
    low,  # noqa: ANN001
    right,  # noqa: ANN001
    bias,  # noqa: ANN001
    rows,  # noqa: ANN001
    width,  # noqa: ANN001
    stride,  # noqa: ANN001
    rank,  # noqa: ANN001
    inner: tl.constexpr,
    across: tl.constexpr,
    biased: tl.constexpr,
    RANK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
):
    """One tile of `_product`: (ROWS, COLUMNS) of y (n, N), from x (n, K), low (n, r) and right (r, N)."""
    m = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    n = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_m, in_n = m[:, None] < rows, n[None, :] < width
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner, INNER):
        k = start + tl.arange(0, INNER)
        part = tl.load(x + m[:, None] * inner + k[None, :], mask=in_m & (k[None, :] < inner), other=0.0)
        inside = (k[:, None] < inner) & in_n
        if across:  # M[k, n] = S[n, k]
            word = tl.load(words + n[None, :] * stride + k[:, None] // 32, mask=inside, other=0)
            bit = (word >> (k[:, None] % 32)) & 1
        else:
            word = tl.load(words + k[:, None] * stride + n[None, :] // 32, mask=inside, other=0)
            bit = (word >> (n[None, :] % 32)) & 1
        total = tl.dot(part, (2 * bit - 1).to(part.dtype), total, input_precision="ieee")
    total *= tl.load(gain)
    if RANK:
        j = tl.arange(0, RANK)
        left = tl.load(low + m[:, None] * rank + j[None, :], mask=in_m & (j[None, :] < rank), other=0.0)
        below = tl.load(right + j[:, None] * width + n[None, :], mask=(j[:, None] < rank) & in_n, other=0.0)
        total = tl.dot(left, below, total, input_precision="ieee")
    if biased:
        total += tl.load(bias + n, mask=n < width, other=0.0).to(tl.float32)[None, :]
    tl.store(y + m[:, None] * width + n[None, :], total.to(y.dtype.element_ty), mask=in_m & in_n)
