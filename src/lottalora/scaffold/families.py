"""The families: the distributions that a frozen weight W_seed can be drawn from.

A family says, for a matrix of shape (out, in), what its law is: a table of 65,536 quantiles and a scale.
`lottalora.scaffold.draw` looks the random words up in the table, so one rounded multiplication is all the
arithmetic between a seed and its weights. Of a convolution's kernel, (out, in / groups, *k), the matrix is
the kernel with its last axes flattened, so fan_in = in / groups · Πk and fan_out = out.

"Fan-in scaled" is the paper's rule: σ = 1/√fan_in, unless the family has a variance schedule of its own. For
families whose Table 13 entry is not of variance 1, the rule can be read in more than one way, so six of them
take `scaling`:

- "standardised" (the default): the law divided by its exact standard deviation, times 1/√fan_in;
- "multiplied": the law with the parameters of Table 13, times 1/√fan_in;
- "literal": the law with the parameters of Table 13, whatever the fan-in.

Source: the paper's Table 13, restated in our words; what the paper leaves open is said in the family's
docstring.
"""

import difflib
import inspect
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.quantiles import SIZE
from lottalora.scaffold.quantiles import quantiles

Shape = tuple[int, int]  # (out, in), in = fan_in
Parameter = float | bool | str
SCALINGS = ("standardised", "multiplied", "literal")
ONLY_SCALE = {"bound", "scale", "rate"}  # parameters that standardising cancels


@dataclass(frozen=True)
class Law:
    """W = finish(scale · table[k]) with k uniform on 0 … 65,535.

    Args:
        table: the quantiles, (65536,) float32.
        scale: one factor for all of them.
        finish: a map of the whole matrix, (out, in) float32 → the same, for families that are not independent
            entries.
    """

    table: np.ndarray
    scale: float = 1.0
    finish: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Family:
    """A named distribution.

    Args:
        name: what is typed on the command line.
        law: (shape, **parameters) → Law; its docstring is the distribution.
        exact: whether the bits are the same on every machine. Families that need a factorisation (QR, a
            spectral norm) are not, since LAPACKs differ; they agree to about 1e-5, relative.
    """

    name: str
    law: Callable[..., Law]
    exact: bool

    @property
    def defaults(self) -> dict[str, Parameter]:
        """The parameters and their values in the paper, as we read it."""
        parameters = list(inspect.signature(self.law).parameters.values())[1:]
        return {p.name: p.default for p in parameters}


FAMILIES: dict[str, Family] = {}


def family(*, exact: bool = True) -> Callable[[Callable[..., Law]], Callable[..., Law]]:
    """Register a function as the family of its name."""

    def register(law: Callable[..., Law]) -> Callable[..., Law]:
        name = law.__name__
        if name in FAMILIES:
            raise ValueError(f"Init family {name!r} is registered already.")
        FAMILIES[name] = Family(name, law, exact)
        return law

    return register


def law_of(name: str, shape: Shape, parameters: Mapping[str, Parameter]) -> Law:
    """The law of a family for one shape.

    Raises:
        ValueError: an unknown family; a parameter that the family does not have, with the known ones; text
            where a number belongs; an unknown scaling; or a scale that standardising would cancel.
    """
    chosen = find_family(name)
    _check(chosen, parameters)
    return chosen.law(shape, **parameters)


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
        if isinstance(value, str) and not isinstance(defaults[key], str):
            wanted = "true or false" if isinstance(defaults[key], bool) else "a number"
            raise ValueError(f"{key} of init family {name!r} must be {wanted}, got {value!r}.")
    if (defaults | dict(parameters)).get("scaling") != "standardised":
        return
    for key in ONLY_SCALE & parameters.keys():
        if parameters[key] != defaults[key]:
            raise ValueError(
                f"{key}={parameters[key]!r} has no effect on init family {name!r} if scaling='standardised'. "
                f"Leave out {key}, or choose scaling='multiplied' or 'literal'."
            )


def find_family(name: str) -> Family:
    """The family of that name, or a ValueError that lists the known ones, the nearest first."""
    if name in FAMILIES:
        return FAMILIES[name]
    near = difflib.get_close_matches(str(name), FAMILIES, n=3, cutoff=0.5)
    known = near + sorted(set(FAMILIES) - set(near))
    raise ValueError(f"Unknown init family {name!r}. Known: {', '.join(known)}.")


def _fan_in(shape: Shape, scaled: bool) -> float:
    return 1 / math.sqrt(shape[1]) if scaled else 1.0


def _scale(scaling: str, shape: Shape, *, literal: float, std: float) -> float:
    """The factor of a table of standard deviation `std`; `literal` is the factor that Table 13 gives it."""
    factors = {
        "standardised": _fan_in(shape, True) / std,
        "multiplied": _fan_in(shape, True) * literal,
        "literal": literal,
    }
    return factors[scaling]


# Standard


@family()
def normal(shape: Shape, std: float = 1.0, fan_in: bool = True) -> Law:
    """N(0, std²), fan-in scaled unless fan_in=False. The default scaffold of the MNIST tables is std=0.1,
    fan_in=False.
    """
    return Law(quantiles("normal"), std * _fan_in(shape, fan_in))


@family()
def truncated_normal(shape: Shape, std: float = 1.0, clip: float = 2.0, fan_in: bool = True) -> Law:
    """N(0, std²), each value clipped to ± clip · std, fan-in scaled.

    With clip = 2, 4.55 % of the values lie at the two edges, and the standard deviation is 0.9594 std, from
    2Φ(c) − 1 − 2c φ(c) + 2c² Φ(−c) at c = 2.
    """
    return Law(_clipped(quantiles("normal"), clip), std * _fan_in(shape, fan_in))


@family()
def uniform(shape: Shape, bound: float = 0.1, scaling: str = "standardised") -> Law:
    """U(−bound, bound), standard deviation bound / √3. Standardised: U(−√3, √3) / √fan_in."""
    return Law(_uniform_table(), _scale(scaling, shape, literal=bound, std=1 / math.sqrt(3)))


@family(exact=False)
def orthogonal(shape: Shape, gain: float = 1.0) -> Law:
    """gain · Q, Q uniform (Haar) among matrices with orthonormal rows, or orthonormal columns if out > in."""
    return Law(quantiles("normal"), finish=lambda W: gain * _orthonormal(W))


# Scale-aware


@family()
def kaiming_normal(shape: Shape, a: float = math.sqrt(5)) -> Law:
    """N(0, 2 / ((1 + a²) fan_in)); a is the negative slope of the leaky ReLU. With a = √5, as in Table 13,
    the variance is 1 / (3 fan_in). He et al. 2015.
    """
    return Law(quantiles("normal"), math.sqrt(2 / ((1 + a * a) * shape[1])))


@family()
def kaiming_uniform(shape: Shape, a: float = math.sqrt(5)) -> Law:
    """U(−b, b), b = √(6 / ((1 + a²) fan_in)); with a = √5, b = 1/√fan_in, PyTorch's default for nn.Linear. He
    et al. 2015.
    """
    return Law(_uniform_table(), math.sqrt(6 / ((1 + a * a) * shape[1])))


@family()
def xavier_normal(shape: Shape, gain: float = 1.0) -> Law:
    """N(0, gain² · 2 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Law(quantiles("normal"), gain * math.sqrt(2 / sum(shape)))


@family()
def xavier_uniform(shape: Shape, gain: float = 1.0) -> Law:
    """U(−b, b), b = gain · √(6 / (fan_in + fan_out)). Glorot & Bengio 2010."""
    return Law(_uniform_table(), gain * math.sqrt(6 / sum(shape)))


@family(exact=False)
def spectral_radius(shape: Shape, rho: float = 0.95) -> Law:
    """N(0, 1) rescaled so that the largest singular value is rho.

    The paper says "spectral radius", which a matrix that is not square does not have; so for every shape we
    take σ₁.
    """
    return Law(quantiles("normal"), finish=lambda W: W * (rho / _largest_singular_value(W)))


# Heavy-tailed


@family()
def cauchy(shape: Shape, scale: float = 0.1, clip: float = 10.0, scaling: str = "standardised") -> Law:
    """Cauchy(0, scale), each value clipped to ± clip · scale.

    Without the clip it has no variance. With it, for X of Cauchy(0, 1) and c = clip,
    E[min(X², c²)] = 2/π (c − arctan c) + c² · 2/π · arctan(1/c): the part inside, and c² times the mass that
    lies at the edges. At c = 10 the standard deviation is 3.4315 scale.
    """
    table = _clipped(quantiles("cauchy"), clip)
    inside = 2 / math.pi * (clip - math.atan(clip))
    at_the_edges = clip**2 * 2 / math.pi * math.atan(1 / clip)
    return Law(table, _scale(scaling, shape, literal=scale, std=math.sqrt(inside + at_the_edges)))


@family()
def laplace(shape: Shape, scale: float = 0.1, scaling: str = "standardised") -> Law:
    """Laplace(0, scale): density exp(−|w| / scale) / (2 scale), standard deviation √2 scale."""
    return Law(quantiles("laplace"), _scale(scaling, shape, literal=scale, std=math.sqrt(2)))


@family()
def student_t(shape: Shape, fan_in: bool = True) -> Law:
    """Student's t with ν = 3 degrees of freedom, fan-in scaled; |t| ≤ 52.5, the last quantile."""
    return Law(quantiles("student_t3"), _fan_in(shape, fan_in))


# Mixtures and sparse


@family()
def gaussian_mixture(shape: Shape, scaling: str = "standardised") -> Law:
    """0.9 N(0, 0.05²) + 0.1 N(0, 0.5²), standard deviation 0.1651."""
    std = math.sqrt(0.9 * 0.05**2 + 0.1 * 0.5**2)  # both means are 0, so the variances mix like the densities
    return Law(quantiles("gaussian_mixture"), _scale(scaling, shape, literal=1.0, std=std))


@family()
def sparse_normal(shape: Shape, zeros: float = 0.2, fan_in: bool = True) -> Law:
    """0 with probability `zeros`, else N(0, 1); fan-in scaled."""
    return Law(_sparse_table(zeros), _fan_in(shape, fan_in))


@family()
def sparse_erdos_renyi(shape: Shape, density: float = 0.8, fan_in: bool = True) -> Law:
    """N(0, 1) on the edges of an Erdős–Rényi graph, each edge there with probability `density`, 0 elsewhere;
    fan-in scaled.

    The paper's p = 0.2 is the share of zeros ("same as sparse normal"), so the density is 0.8. The law is
    that of `sparse_normal`; the stream is another.
    """
    return Law(_sparse_table(1 - density), _fan_in(shape, fan_in))


# Other


@family()
def beta(shape: Shape, bound: float = 0.1, scaling: str = "standardised") -> Law:
    """Beta(2, 2) stretched from [0, 1] to [−bound, bound], standard deviation bound / √5."""
    std = 2 * math.sqrt(1 / 20)  # Var Beta(a, b) = ab / ((a + b)² (a + b + 1)) on [0, 1]
    return Law(quantiles("beta22"), _scale(scaling, shape, literal=bound, std=std))


@family()
def exponential(shape: Shape, rate: float = 10.0, scaling: str = "standardised") -> Law:
    """Exponential(rate) minus its mean 1/rate: never below −1/rate, standard deviation 1/rate."""
    return Law(quantiles("exponential") - np.float32(1), _scale(scaling, shape, literal=1 / rate, std=1.0))


# Low-bit


@family()
def quantized_16bit(shape: Shape, fan_in: bool = True) -> Law:
    """N(0, 1) rounded to the nearest of 2¹⁶ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Law(_quantized_table(16), _fan_in(shape, fan_in))


@family()
def quantized_8bit(shape: Shape, fan_in: bool = True) -> Law:
    """N(0, 1) rounded to the nearest of 2⁸ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Law(_quantized_table(8), _fan_in(shape, fan_in))


@family()
def quantized_4bit(shape: Shape, fan_in: bool = True) -> Law:
    """N(0, 1) rounded to the nearest of 2⁴ levels, fan-in scaled. Grid: see `quantized_2bit`."""
    return Law(_quantized_table(4), _fan_in(shape, fan_in))


@family()
def quantized_2bit(shape: Shape, fan_in: bool = True) -> Law:
    """N(0, 1) rounded to the nearest of 2² levels, −3, −1, 1, 3, and fan-in scaled.

    The paper does not give its grid. Ours has b bits and 2ᵇ equal cells over [−4, 4], each value at the
    centre of its cell.
    """
    return Law(_quantized_table(2), _fan_in(shape, fan_in))


@family()
def binary(shape: Shape, fan_in: bool = True) -> Law:
    """±1 with probability ½ each, fan-in scaled to ±1/√fan_in."""
    return Law(np.sign(quantiles("normal")), _fan_in(shape, fan_in))


# Beyond the paper's 22


@family()
def ternary(shape: Shape, fan_in: bool = True) -> Law:
    """−1, 0 or 1 with probability ⅓ each, times √1.5 so that the variance is 1; fan-in scaled."""
    third = SIZE // 3
    table = np.zeros(SIZE, np.float32)
    table[:third], table[-third:] = -1, 1
    return Law(table, math.sqrt(1.5) * _fan_in(shape, fan_in))


@family()
def zeros(shape: Shape) -> Law:
    """W_seed = 0: the control that leaves the adapters alone with the task."""
    return Law(np.zeros(SIZE, np.float32))


def _uniform_table() -> np.ndarray:
    """The centres of 65,536 equal cells of [−1, 1]; each is exact in float32."""
    return ((2 * np.arange(SIZE) + 1 - SIZE) / SIZE).astype(np.float32)


def _clipped(table: np.ndarray, clip: float) -> np.ndarray:
    if not 0 < clip < math.inf:
        raise ValueError(f"clip must be a finite number above 0, got {clip}.")
    return np.clip(table, -np.float32(clip), np.float32(clip))


def _sparse_table(zeros: float) -> np.ndarray:
    """A share of zeros in the middle; around it normal quantiles, evenly thinned to the room that is left."""
    if not 0 <= zeros < 1:
        raise ValueError(f"The share of zeros must be at least 0 and below 1, got {zeros}.")
    left = (SIZE - round(zeros * SIZE)) // 2  # entries below the zeros, and as many above
    kept = ((2 * np.arange(2 * left) + 1) * SIZE) // (4 * left)  # in whole numbers, so without rounding
    values = quantiles("normal")[kept]
    return np.concatenate([values[:left], np.zeros(SIZE - 2 * left, np.float32), values[left:]])


def _quantized_table(bits: int, limit: int = 4) -> np.ndarray:
    step = np.float32(2 * limit / 2**bits)  # a power of two: every operation below is exact
    cell = np.floor(quantiles("normal") / step)
    half = 2 ** (bits - 1)
    return (np.clip(cell, -half, half - 1) + np.float32(0.5)) * step


def _orthonormal(W: Tensor) -> Tensor:
    """Q of the QR factorisation with the signs of R's diagonal moved into Q, which makes Q uniform. Mezzadri
    2007.
    """
    tall = W.double() if W.shape[0] >= W.shape[1] else W.double().T
    Q, R = torch.linalg.qr(tall)
    Q = Q * R.diagonal().sign()
    return (Q if W.shape[0] >= W.shape[1] else Q.T).to(W.dtype)


def _largest_singular_value(W: Tensor) -> float:
    gram = W.double() @ W.double().T if W.shape[0] <= W.shape[1] else W.double().T @ W.double()
    return math.sqrt(torch.linalg.eigvalsh(gram)[-1].item())
