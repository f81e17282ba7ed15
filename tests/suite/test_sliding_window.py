"""Bits per byte with a sliding window: every token once, with as long a past as is promised."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lottalora.tasks.sliding_window import bits_per_byte

V = 7
TOKENS = np.random.default_rng(0).integers(0, V, 53).astype(np.uint16)


class Past(nn.Module):
    """Logits that depend on all tokens of the window so far."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.randn(V, V)

    def forward(self, tokens):
        return self.table[tokens].cumsum(1)  # (N, T, V)


def by_hand(net, window, stride):
    """Each target alone, from the tokens that its window gives it."""
    targets, total = len(TOKENS) - 1, 0.0
    for target in range(1, targets + 1):
        end = window
        while end < target:
            end = min(end + stride, targets)
        past = torch.from_numpy(TOKENS[end - window : target].astype(np.int64))[None]
        total -= net(past)[0, -1].double().log_softmax(0)[int(TOKENS[target])].item()
    return total / (100 * math.log(2))


@pytest.mark.parametrize(("window", "stride"), [(8, 1), (8, 3), (8, 8), (52, 5), (20, 20)])
def test_bits_per_byte_are_those_of_each_token_with_its_own_past(window, stride):
    found = bits_per_byte(Past(), TOKENS, text_bytes=100, window=window, stride=stride)
    assert found == pytest.approx(by_hand(Past(), window, stride), rel=1e-6)


def test_window_is_no_longer_than_the_text():
    long, whole = (bits_per_byte(Past(), TOKENS, text_bytes=9, window=w, stride=4) for w in (500, 52))
    assert long == whole


@pytest.mark.parametrize("stride", [0, 9, -1])
def test_stride_outside_the_window_is_refused(stride):
    with pytest.raises(ValueError, match="whole number in 1 … 8, the window, got"):
        bits_per_byte(Past(), TOKENS, text_bytes=9, window=8, stride=stride)
