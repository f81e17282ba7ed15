"""A family: its name, its parameters, and the distribution that it gives a matrix.

A family returns the distribution of a matrix of shape (out, in): a table of 65,536 quantiles and a scale.
`drawing.draw` looks up random 16-bit numbers in the table, so one rounded multiplication is all the
arithmetic between a seed and its weights. `catalogue` has the families themselves.
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
from torch import Tensor

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
