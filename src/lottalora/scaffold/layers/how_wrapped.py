"""How a model was wrapped, in names alone, so that an artifact can wrap another one in the same way."""

from dataclasses import dataclass

from lottalora.scaffold.adapter import Scaffold


@dataclass(frozen=True)
class Wrapping:
    """The arguments of `wrap` with every pattern replaced by the names that it covered.

    Args:
        scaffold: as it was given to `wrap`.
        adapt, keep, freeze: the names of matrices in the plain model, by their place. `freeze` contains the
            names of frozen vectors too.
        compose: the names of those that were composed.
    """

    scaffold: Scaffold
    adapt: tuple[str, ...]
    keep: tuple[str, ...]
    freeze: tuple[str, ...]
    compose: tuple[str, ...]

    @property
    def matrices(self) -> set[str]:
        """The names of all matrices of the plain model, and of frozen vectors."""
        return {*self.adapt, *self.keep, *self.freeze}
