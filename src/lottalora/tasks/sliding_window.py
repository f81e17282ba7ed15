"""Bits per byte of a text with a window that slides over it, so that most tokens see a long past.

Letters: N windows at once, T tokens of each, V entries of the vocabulary.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

AT_ONCE = 8  # windows


@torch.no_grad()
def bits_per_byte(net: nn.Module, tokens: np.ndarray, *, text_bytes: int, window: int, stride: int) -> float:
    r"""The cross-entropy of every token but the first, each counted once, over the bytes of the text.

    .. math:: \frac{1}{\text{bytes} \cdot \ln 2} \sum_i -\ln p(t_i \mid \text{at most T tokens before})

    A window begins `stride` tokens after the last one; of its predictions those of its last `stride` tokens
    count, so that each of them has seen T − stride tokens or more. The first window counts as a whole.

    Args:
        net: tokens (N, T) → logits (N, T, V), in evaluation mode.
        tokens: the stream.
        text_bytes: of the text that it is made from.
        window: T, or the whole stream if that is shorter.
        stride: at least 1 and at most T.

    Raises:
        ValueError: a stride out of that range.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"The stride must be a whole number in 1 … {window}, the window, got {stride!r}.")
    targets = len(tokens) - 1
    window = min(window, targets)
    ends = range(window, targets + 1, stride)  # of the windows; a last one overlaps the one before by more
    nats = last_tokens(net, tokens, ends[:1], window=window, count=window)
    for first in range(1, len(ends), AT_ONCE):
        nats += last_tokens(net, tokens, ends[first : first + AT_ONCE], window=window, count=stride)
    rest = targets - ends[-1]
    if rest:
        nats += last_tokens(net, tokens, [targets], window=window, count=rest)
    return nats / (text_bytes * math.log(2))


def last_tokens(net: nn.Module, tokens: np.ndarray, ends: Sequence[int], *, window: int, count: int) -> float:
    """The summed −ln p of the last `count` targets of the windows that end at these targets."""
    places = torch.tensor(ends)[:, None] - window + torch.arange(window + 1)  # (N, T + 1)
    stream = torch.from_numpy(tokens[places.numpy()].astype(np.int64))
    logits = net(stream[:, :-1])[:, -count:]  # (N, T) → (N, count, V)
    return F.cross_entropy(
        logits.flatten(0, 1).double(), stream[:, -count:].flatten(), reduction="sum"
    ).item()
