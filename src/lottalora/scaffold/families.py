"""The families: the distributions that a frozen weight W_seed can be drawn from.

A family returns the distribution of a matrix of shape (out, in): a table of 65,536 quantiles and a scale.
`lottalora.scaffold.draw` looks up random 16-bit numbers in the table, so one rounded multiplication is all
the arithmetic between a seed and its weights. A convolution's kernel, (out, in / groups, *k), is a matrix
with its last axes flattened, so fan_in = in / groups · Πk and fan_out = out.

"Fan-in scaled" is the paper's rule: σ = 1/√fan_in, unless the family defines its own variance. Six families
have an entry in Table 13 whose variance is not 1. The rule can then be read in more than one way, so these
take `scaling`:

- "standardised" (the default): the distribution divided by its exact standard deviation, times 1/√fan_in;
- "multiplied": the distribution with the parameters of Table 13, times 1/√fan_in;
- "literal": the distribution with the parameters of Table 13, whatever the fan-in.

Source: the paper's Table 13, in our words. Where the paper leaves a choice open, the family's docstring says
what we chose.
"""

import difflib
import functools
import inspect
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lottalora.scaffold.quantiles import SIZE
from lottalora.scaffold.quantiles import quantiles

Shape = tuple[int, int]  # (out, in), in = fan_in
Parameter = float | bool | str
SCALINGS = ("standardised", "multiplied", "literal")
ONLY_SCALE = {"bound", "scale", "rate"}  # parameters that standardising cancels
Table = npt.NDArray[np.float32]  # (65536,)


@dataclass(frozen=True)
class Distribution:
    """W = finish(scale · table[k]) with k uniform on 0 … 65,535.

    Args:
        table: the quantiles, (65536,) float32.
        scale: one factor for all of them.
        finish: a function of the whole matrix, (out, in) float32 → (out, in) float32, for families whose
            entries depend on each other; None for independent entries.
    """

    table: Table
    scale: float = 1.0
    finish: Callable[[Tensor], Tensor] | None = None


MakeDistribution = Callable[..., Distribution]


@dataclass(frozen=True)
class Family:
    """A named distribution.

    Args:
        name: the name on the command line.
        distribution: (shape, **parameters) → Distribution; its docstring defines the distribution.
        exact: whether the bits are the same on every machine. Families that need a factorisation (QR, a
            spectral norm) are not exact, since LAPACK builds differ; they agree to about 1e-5, relative.
    """

    name: str
    distribution: MakeDistribution
    exact: bool

    @functools.cached_property
    def defaults(self) -> dict[str, Parameter]:
        """The parameters and their default values, which are the paper's as we read it."""
        parameters = list(inspect.signature(self.distribution).parameters.values())[1:]
        return {p.name: p.default for p in parameters}


FAMILIES: dict[str, Family] = {}


def family(*, exact: bool = True) -> Callable[[MakeDistribution], MakeDistribution]:
    """Register the decorated function as a family, under the function's name.

    Args:
        exact: whether the family's weights have the same bits on every machine.

    Raises:
        ValueError: a family of that name exists.
    """

    def register(distribution: MakeDistribution) -> MakeDistribution:
        name = getattr(distribution, "__name__", "")
        if name in FAMILIES:
            raise ValueError(f"Init family {name!r} is registered already.")
        FAMILIES[name] = Family(name, distribution, exact)
        return distribution

    return register


def distribution_of(name: str, shape: Shape, parameters: Mapping[str, Parameter]) -> Distribution:
    """The distribution of a family for one matrix.

    Args:
        name: a key of FAMILIES.
        shape: of the matrix, (out, in).
        parameters: the parameters that differ from the family's defaults.

    Raises:
        ValueError: the family is unknown; it has no such parameter; a parameter is text instead of a number,
            or not finite; the scaling is unknown; or a parameter would have no effect, since standardising
            cancels it.
    """
    chosen = find_family(name)
    _check(chosen, parameters)
    distribution = chosen.distribution(shape, **parameters)
    for key, value in parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} of init family {name!r} must be a finite number, got {value!r}.")
    return distribution


def _check(chosen: Family, parameters: Mapping[str, Parameter]) -> None:
    name, defaults = chosen.name, chosen.defaults
    for key, value in parameters.items():
        if key not in defaults:
            known = ", ".join(defaults) or "none"
            raise ValueError(f"Init family {name!r} has no parameter {key!r}. It has: {known}.")
        if key == "scaling" and value not in SCALINGS:
            raise ValueError(
                f"Unknown scaling {value!r} of init family {name!r}. Known: {', '.join(SCALINGS)}."
            )
        if not _is_like(value, defaults[key]):
            wanted = "true or false" if isinstance(defaults[key], bool) else "a number, int or float"
            raise ValueError(f"{key} of init family {name!r} must be {wanted}, got {value!r}.")
    if (defaults | dict(parameters)).get("scaling") != "standardised":
        return
    for key in ONLY_SCALE & parameters.keys():
        if parameters[key] != defaults[key]:
            raise ValueError(
                f"{key}={parameters[key]!r} has no effect on init family {name!r} if scaling='standardised'. "
                f"Leave out {key}, or choose scaling='multiplied' or 'literal'."
            )


def _is_like(value: object, default: Parameter) -> bool:
    """Whether a parameter's value has the type of its default: text, true or false, or a number."""
    if isinstance(default, str | bool):
        return isinstance(value, type(default))
    return isinstance(value, int | float) and not isinstance(value, bool)


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        ValueError: the family is unknown; the message lists the known ones, the most similar first.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(str(name), FAMILIES, n=3, cutoff=0.5)
    known = near + sorted(set(FAMILIES) - set(near))
    raise ValueError(f"Unknown init family {name!r}. Known: {', '.join(known)}.")


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
    return Distribution(_clipped(quantiles("normal"), clip), std * _fan_in(shape, fan_in))


@family()
def uniform(shape: Shape, bound: float = 0.1, scaling: str = "standardised") -> Distribution:
    """U(−bound, bound), standard deviation bound / √3. Standardised: U(−√3, √3) / √fan_in."""
    return Distribution(_uniform_table(), _scale(scaling, shape, literal=bound, std=1 / math.sqrt(3)))


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
    return Distribution(_uniform_table(), math.sqrt(6 / ((1 + a * a) * shape[1])))


@family()
def xavier_normal(shape: Shape, gain: float = 1.0) -> Distribution:
    """N(0, gain² · 2 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Distribution(quantiles("normal"), gain * math.sqrt(2 / sum(shape)))


@family()
def xavier_uniform(shape: Shape, gain: float = 1.0) -> Distribution:
    """U(−b, b), b = gain · √(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Distribution(_uniform_table(), gain * math.sqrt(6 / sum(shape)))


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
    table = _clipped(quantiles("cauchy"), clip)
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
    return Distribution(_sparse_table(zeros), _fan_in(shape, fan_in))


@family()
def sparse_erdos_renyi(shape: Shape, density: float = 0.8, fan_in: bool = True) -> Distribution:
    """N(0, 1) on the edges of an Erdős–Rényi graph with this density, 0 elsewhere; fan-in scaled.

    The paper's p = 0.2 is the share of zeros ("same as sparse normal"), so the density is 0.8. The
    distribution is that of `sparse_normal`, drawn from another random stream.
    """
    return Distribution(_sparse_table(1 - density), _fan_in(shape, fan_in))


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
    return Distribution(_quantized_table(16), _fan_in(shape, fan_in))


@family()
def quantized_8bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2⁸ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Distribution(_quantized_table(8), _fan_in(shape, fan_in))


@family()
def quantized_4bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2⁴ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Distribution(_quantized_table(4), _fan_in(shape, fan_in))


@family()
def quantized_2bit(shape: Shape, fan_in: bool = True) -> Distribution:
    """N(0, 1) rounded to the nearest of 2² levels, −3, −1, 1, 3, and fan-in scaled.

    The paper does not give its grid. Ours splits [−4, 4] into 2ᵇ equal cells for b bits and rounds each value
    to the centre of its cell.
    """
    return Distribution(_quantized_table(2), _fan_in(shape, fan_in))


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


def _uniform_table() -> Table:
    """The centres of 65,536 equal cells of [−1, 1]; each is exact in float32."""
    return ((2 * np.arange(SIZE) + 1 - SIZE) / SIZE).astype(np.float32)


def _clipped(table: Table, clip: float) -> Table:
    if not 0 < clip < math.inf:
        raise ValueError(f"clip must be a finite number above 0, got {clip}.")
    clipped: Table = np.clip(table, -np.float32(clip), np.float32(clip))
    return clipped


def _sparse_table(zeros: float) -> Table:
    """The given share of zeros in the middle, and evenly thinned normal quantiles on both sides."""
    if not 0 <= zeros < 1:
        raise ValueError(f"The share of zeros must be at least 0 and below 1, got {zeros}.")
    left = (SIZE - round(zeros * SIZE)) // 2  # entries below the zeros, and as many above
    kept = ((2 * np.arange(2 * left) + 1) * SIZE) // (4 * left)  # integers: no rounding
    values = quantiles("normal")[kept]
    return np.concatenate([values[:left], np.zeros(SIZE - 2 * left, np.float32), values[left:]])


def _quantized_table(bits: int, limit: int = 4) -> Table:
    step = np.float32(2 * limit / 2**bits)  # a power of two: every operation below is exact
    cell = np.floor(quantiles("normal") / step)
    half = 2 ** (bits - 1)
    table: Table = (np.clip(cell, -half, half - 1) + np.float32(0.5)) * step
    return table


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
