"""The families of the paper's Table 13, in our words, and two more.

A convolution's kernel, (out, in / groups, *k), is a matrix with its last axes flattened, so fan_in = in /
groups · Πk and fan_out = out.

"Fan-in scaled" is the paper's rule: σ = 1/√fan_in, unless the family defines its own variance. Six families
have an entry in Table 13 whose variance is not 1. The rule can then be read in more than one way, so these
take `scaling`:

- "standardised" (the default): the distribution divided by its exact standard deviation, times 1/√fan_in;
- "multiplied": the distribution with the parameters of Table 13, times 1/√fan_in;
- "literal": the distribution with the parameters of Table 13, whatever the fan-in.

Where the paper leaves a choice open, the family's docstring says what we chose.
"""

import math

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.families.family import Distribution
from lottalora.scaffold.families.family import Shape
from lottalora.scaffold.families.family import family
from lottalora.scaffold.families.quantiles import SIZE
from lottalora.scaffold.families.quantiles import quantiles
from lottalora.scaffold.families.tables import clipped
from lottalora.scaffold.families.tables import quantized_table
from lottalora.scaffold.families.tables import sparse_table
from lottalora.scaffold.families.tables import uniform_table


def _fan_in(shape: Shape, scaled: bool) -> float:
    return 1 / math.sqrt(shape[1]) if scaled else 1.0


def _scale(scaling: str, shape: Shape, *, literal: float, std: float) -> float:
    """The scale of a table with standard deviation `std`; `literal` is the scale in Table 13."""
    factors = {
        "standardised": _fan_in(shape, True) / std,
        "multiplied": _fan_in(shape, True) * literal,
        "literal": literal,
    }
    return factors[scaling]


# Standard


@family()
def normal(shape: Shape, std: float = 1.0, fan_in: bool = True) -> Distribution:
    """N(0, std²), fan-in scaled unless fan_in=False. The paper's MNIST tables use std=0.1, fan_in=False."""
    return Distribution(quantiles("normal"), std * _fan_in(shape, fan_in))


@family()
def truncated_normal(shape: Shape, std: float = 1.0, clip: float = 2.0, fan_in: bool = True) -> Distribution:
    """N(0, std²), each value clipped to ± clip · std, fan-in scaled.

    With clip = 2, 4.55 % of the values lie at the two edges and the standard deviation is 0.9594 std. Its
    square is 2Φ(c) − 1 − 2c φ(c) + 2c² Φ(−c) at c = 2.
    """
    return Distribution(clipped(quantiles("normal"), clip), std * _fan_in(shape, fan_in))


@family()
def uniform(shape: Shape, bound: float = 0.1, scaling: str = "standardised") -> Distribution:
    """U(−bound, bound), standard deviation bound / √3. Standardised: U(−√3, √3) / √fan_in."""
    return Distribution(uniform_table(), _scale(scaling, shape, literal=bound, std=1 / math.sqrt(3)))


@family(exact=False)
def orthogonal(shape: Shape, gain: float = 1.0) -> Distribution:
    """gain · Q with Q Haar-uniform: orthonormal rows, or orthonormal columns if out > in."""
    return Distribution(quantiles("normal"), finish=lambda W: gain * _orthonormal(W))


# Scale-aware


@family()
def kaiming_normal(shape: Shape, a: float = math.sqrt(5)) -> Distribution:
    """N(0, 2 / ((1 + a²) fan_in)); a is the negative slope of the leaky ReLU. With a = √5, as in Table 13,
    the variance is 1 / (3 fan_in). He et al. 2015.
    """
    return Distribution(quantiles("normal"), math.sqrt(2 / ((1 + a * a) * shape[1])))


@family()
def kaiming_uniform(shape: Shape, a: float = math.sqrt(5)) -> Distribution:
    """U(−b, b), b = √(6 / ((1 + a²) fan_in)); with a = √5, b = 1/√fan_in, PyTorch's default for nn.Linear. He
    et al. 2015.
    """
    return Distribution(uniform_table(), math.sqrt(6 / ((1 + a * a) * shape[1])))


@family()
def xavier_normal(shape: Shape, gain: float = 1.0) -> Distribution:
    """N(0, gain² · 2 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Distribution(quantiles("normal"), gain * math.sqrt(2 / sum(shape)))


@family()
def xavier_uniform(shape: Shape, gain: float = 1.0) -> Distribution:
    """U(−b, b), b = gain · √(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Distribution(uniform_table(), gain * math.sqrt(6 / sum(shape)))


@family(exact=False)
def spectral_radius(shape: Shape, rho: float = 0.95) -> Distribution:
    """N(0, 1) rescaled so that the largest singular value is rho.

    The paper says "spectral radius", which only a square matrix has, so we use σ₁ for every shape.
    """
    return Distribution(quantiles("normal"), finish=lambda W: W * (rho / _largest_singular_value(W)))


# Heavy-tailed


@family()
def cauchy(
    shape: Shape, scale: float = 0.1, clip: float = 10.0, scaling: str = "standardised"
) -> Distribution:
    """Cauchy(0, scale), each value clipped to ± clip · scale.

    Without the clip the variance is infinite. With it, for X ~ Cauchy(0, 1) and c = clip,
    E[min(X², c²)] = 2/π (c − arctan c) + c² · 2/π · arctan(1/c): the values inside the clip, plus c² times
    the mass at the edges. At c = 10 the standard deviation is 3.4315 scale.
    """
    table = clipped(quantiles("cauchy"), clip)
    inside = 2 / math.pi * (clip - math.atan(clip))
    at_the_edges = clip**2 * 2 / math.pi * math.atan(1 / clip)
    return Distribution(table, _scale(scaling, shape, literal=scale, std=math.sqrt(inside + at_the_edges)))


@family()
def laplace(shape: Shape, scale: float = 0.1, scaling: str = "standardised") -> Distribution:
    """Laplace(0, scale): density exp(−|w| / scale) / (2 scale), standard deviation √2 scale."""
    return Distribution(quantiles("laplace"), _scale(scaling, shape, literal=scale, std=math.sqrt(2)))


@family()
def student_t(shape: Shape, fan_in: bool = True) -> Distribution:
    """Student's t with ν = 3 degrees of freedom, fan-in scaled; |t| ≤ 52.5, the last quantile."""
    return Distribution(quantiles("student_t3"), _fan_in(shape, fan_in))


# Mixtures and sparse


@family()
def gaussian_mixture(shape: Shape, scaling: str = "standardised") -> Distribution:
    """0.9 N(0, 0.05²) + 0.1 N(0, 0.5²), standard deviation 0.1651."""
    std = math.sqrt(0.9 * 0.05**2 + 0.1 * 0.5**2)  # both means are 0, so the variances mix like the densities
    return Distribution(quantiles("gaussian_mixture"), _scale(scaling, shape, literal=1.0, std=std))


@family()
def sparse_normal(shape: Shape, zeros: float = 0.2, fan_in: bool = True) -> Distribution:
    """0 with probability `zeros`, else N(0, 1); fan-in scaled."""
    return Distribution(sparse_table(zeros), _fan_in(shape, fan_in))


@family()
def sparse_erdos_renyi(shape: Shape, density: float = 0.8, fan_in: bool = True) -> Distribution:
    """N(0, 1) on the edges of an Erdős–Rényi graph with this density, 0 elsewhere; fan-in scaled.

    The paper's p = 0.2 is the share of zeros ("same as sparse normal"), so the density is 0.8. The
    distribution is that of `sparse_normal`, drawn from another random stream.
    """
    return Distribution(sparse_table(1 - density), _fan_in(shape, fan_in))


# Other


@family()
def beta(shape: Shape, bound: float = 0.1, scaling: str = "standardised") -> Distribution:
    """Beta(2, 2) stretched from [0, 1] to [−bound, bound], standard deviation bound / √5."""
    std = 2 * math.sqrt(1 / 20)  # Var Beta(a, b) = ab / ((a + b)² (a + b + 1)) on [0, 1]
    return Distribution(quantiles("beta22"), _scale(scaling, shape, literal=bound, std=std))


@family()
def exponential(shape: Shape, rate: float = 10.0, scaling: str = "standardised") -> Distribution:
    """Exponential(rate) minus its mean 1/rate: never below −1/rate, standard deviation 1/rate."""
    if not rate > 0:
        raise ValueError(f"rate must be a number above 0, got {rate}.")
    return Distribution(
        quantiles("exponential") - np.float32(1), _scale(scaling, shape, literal=1 / rate, std=1.0)
    )


# Low-bit


@family()
def quantized_16bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2¹⁶ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Distribution(quantized_table(16), _fan_in(shape, fan_in))


@family()
def quantized_8bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2⁸ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Distribution(quantized_table(8), _fan_in(shape, fan_in))


@family()
def quantized_4bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2⁴ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Distribution(quantized_table(4), _fan_in(shape, fan_in))


@family()
def quantized_2bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2² levels, −3, −1, 1, 3, and fan-in scaled.

    The paper does not give its grid. Ours splits [−4, 4] into 2ᵇ equal cells for b bits and rounds each value
    to the centre of its cell.
    """
    return Distribution(quantized_table(2), _fan_in(shape, fan_in))


@family()
def binary(shape: Shape, fan_in: bool = True) -> Distribution:
    """±1 with probability ½ each, fan-in scaled to ±1/√fan_in."""
    return Distribution(np.sign(quantiles("normal")), _fan_in(shape, fan_in))


# Beyond the paper's 22


@family()
def ternary(shape: Shape, fan_in: bool = True) -> Distribution:
    """−1, 0 or 1 with probability ⅓ each, times √1.5 so that the variance is 1; fan-in scaled."""
    third = SIZE // 3
    table = np.zeros(SIZE, np.float32)
    table[:third], table[-third:] = -1, 1
    return Distribution(table, math.sqrt(1.5) * _fan_in(shape, fan_in))


@family()
def zeros(shape: Shape) -> Distribution:
    """W_seed = 0: the control in which the adapters do all the work."""
    return Distribution(np.zeros(SIZE, np.float32))


def _orthonormal(W: Tensor) -> Tensor:
    """Q of the QR factorisation with the signs of R's diagonal moved into Q, which makes Q Haar-uniform.

    Source: Mezzadri 2007, https://arxiv.org/abs/math-ph/0609050
    """
    tall = W.double() if W.shape[0] >= W.shape[1] else W.double().T
    Q, R = torch.linalg.qr(tall)
    Q = Q * R.diagonal().sign()
    uniform: Tensor = Q if W.shape[0] >= W.shape[1] else Q.T
    return uniform.to(W.dtype)


def _largest_singular_value(W: Tensor) -> float:
    gram = W.double() @ W.double().T if W.shape[0] <= W.shape[1] else W.double().T @ W.double()
    return math.sqrt(torch.linalg.eigvalsh(gram)[-1].item())
