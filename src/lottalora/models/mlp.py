"""The paper's multilayer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor
from torch import nn


class MLP(nn.Module):
    r"""Hidden linears with ReLU and dropout, and a linear head.

    .. math:: h_i = \mathrm{dropout}(\mathrm{relu}(W_i h_{i-1} + b_i)), \qquad y = W_{head} h_L + b_{head}

    Args:
        in_shape: shape of one input; it is flattened.
        out_dim: number of outputs.
        hidden: widths of the hidden layers, from input to output.
        dropout: probability, after each hidden layer.

    Source: the paper, MNIST protocol; presets of Table 14.
    """

    def __init__(
        self, in_shape: Sequence[int], out_dim: int, *, hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        widths = [math.prod(in_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in zip(widths, hidden, strict=False):
            layers += [nn.Linear(width_in, width_out), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))  # (N, *in_shape) → (N, out_dim)
