"""The CIFAR networks of He et al.: plain and residual.  N images, C channels, H × W pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

CHANNELS = (16, 32, 64)  # of the three stages; each but the first halves the image


class ResNet(nn.Module):
    """6n + 2 layers: a 3×3 convolution, three stages of n blocks of two, a linear head on the mean image.

    Each convolution is without bias and followed by batch normalisation. The shortcut has no parameters
    (option A), so a plain and a residual network of one depth have the same ones.

    Args:
        in_shape: (C, H, W) of one image.
        out_dim: number of outputs.
        depth: number of layers with weights, 6n + 2.
        shortcut: whether the input of a block is added to its output.

    Raises:
        ValueError: a depth that is not 6n + 2.

    Source: He et al. 2015, https://arxiv.org/abs/1512.03385, Section 4.2; the paper's CIFAR-10 protocol.
    """

    def __init__(self, in_shape: Sequence[int], out_dim: int, *, depth: int, shortcut: bool) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"The depth of a ResNet must be 6n + 2, such as 20 or 32, got {depth!r}.")
        first, *_, last = CHANNELS
        self.stem = Convolution(in_shape[0], first)
        blocks, channels = [], first
        for stage in CHANNELS:
            for _ in range((depth - 2) // 6):
                blocks.append(Block(channels, stage, shortcut=shortcut))
                channels = stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(last, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(memory_format=torch.channels_last)  # a quarter of the step's time on a CPU
        h = self.blocks(F.relu(self.stem(x)))  # (N, C, H, W) → (N, 64, H / 4, W / 4)
        return self.head(h.mean(dim=(2, 3)))  # (N, 64) → (N, out_dim)


class Block(nn.Module):
    """Two convolutions; where the channels double, the first has stride 2."""

    def __init__(self, channels_in: int, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.stride = 1 if channels == channels_in else 2
        self.more = channels - channels_in
        self.shortcut = shortcut
        self.first = Convolution(channels_in, channels, self.stride)
        self.second = Convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.second(F.relu(self.first(x)))
        if self.shortcut:  # option A: every second pixel, and 0 in the channels that x does not have
            h = h + F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(h)


class Convolution(nn.Sequential):
    """3×3 without bias, then batch normalisation."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        conv = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # He et al., Section 3.4
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm2d(channels)
