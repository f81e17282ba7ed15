"""What a W_seed may be, whether it is the draw of its source, and memory for one."""

import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.drawing.local_rows import rows_of
from lottalora.scaffold.drawing.local_rows import to_local
from lottalora.scaffold.drawing.marks import address
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.drawing.marks import mark_of
from lottalora.scaffold.drawing.marks import writes
from lottalora.scaffold.layers.identity import Fingerprint
from lottalora.scaffold.layers.identity import bits
from lottalora.scaffold.layers.identity import fingerprint_of


def is_drawn(W_seed: Tensor, source: Source | None) -> bool:
    """Whether the mark of W_seed, (out, in), says that it was drawn from this source."""
    drawn = mark_of(W_seed)
    return drawn is not None and (drawn.source is source or drawn.source == source)


def holds(W_seed: Tensor, W: Tensor, source: Source, padding_idx: int | None) -> bool:
    """Whether W_seed has the values that were drawn for it.

    Args:
        W_seed: (out, in).
        W: what `source` draws for the rows that this process holds, (local rows, in); it is changed.
        source: the source.
        padding_idx: the row of the whole W_seed that stays 0; None for none.
    """
    held = to_local(W_seed).cpu()
    first, last = rows_of(W_seed)
    if padding_idx is not None and first <= padding_idx < last:
        W[padding_idx - first] = 0
    W = W.to(held.dtype)
    return torch.equal(held, W) or (not source.exact and torch.allclose(held, W))


def present_fingerprint(W_seed: Tensor, source: Source | None, padding_idx: int | None) -> Fingerprint:
    """The fingerprint of the float32 draw; without a source, of the values that W_seed has.

    Args:
        W_seed: (out, in).
        source: what it was drawn from; None for a W_seed that was given.
        padding_idx: the row that is 0, unlike in the draw; None for none.
    """
    if source is None:
        return f"{str(W_seed.dtype).removeprefix('torch.')}:{bits(W_seed)}"
    whole = padding_idx is None and W_seed.dtype is torch.float32
    unchanged = whole and is_drawn(W_seed, source) and is_untouched(W_seed)
    return fingerprint_of(W_seed if unchanged else draw(source), exact=source.exact)


def key_of_values(W_seed: Tensor) -> object:
    """What changes when W_seed, (out, in), is replaced or written to."""
    return W_seed.dtype, W_seed.device, address(W_seed), writes(W_seed)


def target_of(fn: Callable[[Tensor], Tensor]) -> torch.device:
    """Where `fn` moves a tensor that is on the meta device: meta, or where it would if there were values."""
    try:
        return fn(torch.empty(0, device="meta")).device
    except NotImplementedError:  # as `to` says of a tensor without values
        return fn(torch.empty(0)).device


def new_like(W_seed: Tensor, device: torch.device) -> Tensor:
    """Memory for a W_seed, (out, in), on a device; also in inference mode it is fit for training."""
    with torch.inference_mode(False):
        return torch.empty_like(W_seed, device=device)


def refuse_no_matrix(W_seed: Tensor, source: Source | None) -> None:
    """Refuse a W_seed, of any shape, that is no matrix, or another one than its source draws.

    Raises:
        ValueError: it is.
    """
    shape = tuple(W_seed.shape)
    if len(shape) != 2 or not (W_seed.is_floating_point() or W_seed.is_complex()):
        kind = str(W_seed.dtype).removeprefix("torch.")
        raise ValueError(f"W_seed must be a floating-point matrix, (out, in), got {kind} of shape {shape}.")
    if source is not None and shape != tuple(source.shape):
        raise ValueError(f"W_seed must have the shape that its source draws, {source.shape}, got {shape}.")


def refuse_another_kind(value: Tensor, W_seed: Tensor) -> None:
    """Refuse to replace W_seed, (out, in), by a parameter, which would be trained, or by another shape.

    Raises:
        ValueError: it is.
    """
    if isinstance(value, nn.Parameter):
        raise ValueError("W_seed is frozen, so it takes a tensor and no nn.Parameter.")
    if value.shape != W_seed.shape:
        raise ValueError(f"W_seed has the shape {tuple(W_seed.shape)}, got one of {tuple(value.shape)}.")


def keeps_values(fn: Callable[[Tensor], Tensor], like: Tensor) -> bool:
    """Whether `fn` keeps a tensor's values, as `to` does and `to_empty` does not, tried on random values."""
    values = torch.tensor(list(os.urandom(16)), dtype=like.dtype, device=like.device)
    moved = fn(values)
    return torch.equal(*(each.cpu().to(torch.complex128) for each in (moved, values)))  # holds any dtype
