"""Where each weight goes: the patterns of `wrap`, read over the names and classes of one model."""

import fnmatch
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lottalora.scaffold.matrices import Matrix

Given = Sequence[str | type[nn.Module]]
ALL = "*"


@dataclass(frozen=True)
class Pattern:
    """One pattern, over dotted names; what matches a module covers all below it.

    Args:
        given: as it was typed: a name, a shell pattern, or a class of modules with its subclasses.
        exact: the names that it stands for, where it is a class or a literal name; None for a shell pattern.
    """

    given: str | type[nn.Module]
    exact: frozenset[str] | None

    @classmethod
    def read(cls, given: str | type[nn.Module], model: nn.Module, names: set[str]) -> "Pattern":
        """A text that is a name of this model is that name, and no shell pattern: "w[0]" is not "w0"."""
        if isinstance(given, type):
            modules = model.named_modules(remove_duplicate=False)
            return cls(given, frozenset(name for name, module in modules if isinstance(module, given)))
        return cls(given, frozenset([given]) if given in names else None)

    @property
    def literal(self) -> bool:
        """Whether it is a name of the model."""
        return isinstance(self.given, str) and self.exact is not None

    def covers(self, name: str) -> bool:
        if self.exact is not None:
            return not self.exact.isdisjoint(_within(name))
        return any(fnmatch.fnmatchcase(part, self.given) for part in _within(name) if part)

    def __str__(self) -> str:
        return shown(self.given)


class Places:
    """The patterns of one call of `wrap`.

    Args:
        model: not wrapped yet.
        matrices: of the model.
        keep: what stays dense and trained.
        freeze: what becomes random and frozen, without an adapter.
        compose: what may be composed where no layer of ours computes it.

    Raises:
        ValueError: a pattern that matches no weight, or one of `compose` that matches vectors alone.
    """

    def __init__(
        self, model: nn.Module, matrices: list[Matrix], keep: Given, freeze: Given, compose: Given
    ) -> None:
        self.matrices = {name for matrix in matrices for name in matrix.names}
        self.weights = self.matrices | {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.modules = [name for name, _ in model.named_modules() if name]
        given = {"keep": keep, "freeze": freeze, "compose": compose}
        names = {part for name in self.weights for part in _within(name) if part}
        self.patterns = {
            kind: [Pattern.read(one, model, names) for one in _listed(kind, patterns)]
            for kind, patterns in given.items()
        }
        for kind, patterns in self.patterns.items():
            for pattern in patterns:
                self._check(kind, pattern)

    def _check(self, kind: str, pattern: Pattern) -> None:
        if kind == "compose" and pattern.given == ALL:
            return  # "whatever needs it", which may be nothing
        covered = [name for name in self.weights if pattern.covers(name)]
        if not covered:
            modules = ", ".join(self.modules) or "none"
            raise ValueError(f"{kind}={pattern} names no weight of this model. Modules: {modules}.")
        if kind == "compose" and self.matrices.isdisjoint(covered):
            raise ValueError(
                f"compose={pattern} names no matrix: {min(covered)} has one axis that counts, and stays "
                f"trained. Leave it out, or name it in freeze=."
            )

    def of(self, names: Iterable[str]) -> str:
        """ "keep", "freeze" or "adapt" for a parameter with these names.

        Raises:
            ValueError: the patterns of both kinds match it, and neither or both are literal names.
        """
        names = list(names)
        keep, freeze = (self._covering(kind, names) for kind in ("keep", "freeze"))
        if keep and freeze:
            keep, freeze = ([p for p in patterns if p.literal] for patterns in (keep, freeze))
            if bool(keep) == bool(freeze):
                raise ValueError(f"{names[0]} is named both in keep= and in freeze=: choose one.")
        return "keep" if keep else "freeze" if freeze else "adapt"

    def composes(self, names: Iterable[str]) -> bool:
        """Whether a parameter with these names may be composed."""
        return bool(self._covering("compose", list(names)))

    def _covering(self, kind: str, names: list[str]) -> list[Pattern]:
        return [pattern for pattern in self.patterns[kind] if any(pattern.covers(name) for name in names)]


def _listed(kind: str, patterns: Given) -> list[str | type[nn.Module]]:
    if isinstance(patterns, str | type):
        text = shown(patterns)
        what = "text" if isinstance(patterns, str) else "class"
        raise ValueError(f"{kind} takes a list of patterns, got the {what} {text}: write {kind}=[{text}].")
    patterns = list(patterns)
    for given in patterns:
        if not isinstance(given, str) and not (isinstance(given, type) and issubclass(given, nn.Module)):
            raise ValueError(f"{kind} takes names, shell patterns and classes of nn.Module, got {given!r}.")
    return patterns


def shown(given: str | type[nn.Module]) -> str:
    """A pattern as it is typed."""
    if isinstance(given, str):
        return repr(given)
    return f"{'nn.' * (getattr(nn, given.__name__, None) is given)}{given.__name__}"


def _within(name: str) -> Iterator[str]:
    """The root "", each module that a dotted name lies in, and the name itself."""
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(len(parts) + 1))
