"""The patterns of `wrap` that decide which weights are adapted, frozen, kept or composed."""

import fnmatch
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import projected_biases
from lottalora.scaffold.wrapping.streams import stream_names
from lottalora.scaffold.wrapping.streams import without_wrappers

Given = Sequence[str | type[nn.Module]]
ALL = "*"


@dataclass(frozen=True)
class Pattern:
    """One pattern over dotted names. A pattern that matches a module covers everything in it.

    Args:
        given: the pattern as typed: a name, a shell pattern, or a class of modules, with its subclasses.
        exact: the names that a class or a literal name stands for; None for a shell pattern.
    """

    given: str | type[nn.Module]
    exact: frozenset[str] | None

    @classmethod
    def read(cls, given: str | type[nn.Module], model: nn.Module, names: set[str]) -> "Pattern":
        """Read a pattern of the user for one model.

        Text that is a name in the model is that name and not a shell pattern: "w[0]" does not match "w0".

        Args:
            given: the pattern as typed.
            model: the model.
            names: all names of weights in the model and of the modules that contain them.
        """
        if isinstance(given, type):
            modules = model.named_modules(remove_duplicate=False)
            return cls(given, frozenset(name for name, module in modules if isinstance(module, given)))
        return cls(given, frozenset([given]) if given in names else None)

    @property
    def literal(self) -> bool:
        """Whether the pattern is a name in the model."""
        return isinstance(self.given, str) and self.exact is not None

    def covers(self, name: str) -> bool:
        """Whether the pattern matches a dotted name or a module that contains it."""
        if self.exact is not None:
            return not self.exact.isdisjoint(_within(name))
        given = str(self.given)  # text: a class has its exact names
        return any(fnmatch.fnmatchcase(part, given) for part in _within(name) if part)

    def __str__(self) -> str:
        return shown(self.given)


class Places:
    """The patterns of one call of `wrap`. Names may leave out the wrappers that PyTorch puts around modules.

    Args:
        model: the model, before it is wrapped.
        matrices: the model's matrices.
        keep: patterns of what stays dense and trained.
        freeze: patterns of what becomes random and frozen, without an adapter.
        compose: patterns of matrices that may be composed, in modules without a layer of ours.

    Raises:
        ValueError: a pattern matches no weight; one of `compose` matches vectors only; or an argument is not
            a list of names, shell patterns and classes of modules.
    """

    def __init__(
        self, model: nn.Module, matrices: list[Matrix], keep: Given, freeze: Given, compose: Given
    ) -> None:
        self.matrices = {name for matrix in matrices for name in matrix.names}
        self.weights = self.matrices | {name for name, _ in model.named_parameters(remove_duplicate=False)}
        self.weights |= projected_biases(model)
        self.streams = stream_names(model)
        self.modules = list(dict.fromkeys(name for name in self.streams.values() if name))
        given = {"keep": keep, "freeze": freeze, "compose": compose}
        names = {part for name in self.weights for each in self._both(name) for part in _within(each) if part}
        self.patterns = {
            kind: [Pattern.read(one, model, names) for one in _listed(kind, patterns)]
            for kind, patterns in given.items()
        }
        for kind, patterns in self.patterns.items():
            for pattern in patterns:
                self._check(kind, pattern)

    def refuse_without_effect(self, kind: str, absent: set[str]) -> None:
        """Refuse a pattern that matches only names that the model has not after all.

        Args:
            kind: "keep", "freeze" or "compose".
            absent: such names, for example of parts of an attention that is not split.

        Raises:
            ValueError: there is one.
        """
        self.weights -= absent
        for pattern in self.patterns[kind]:
            self._check(kind, pattern)

    def _check(self, kind: str, pattern: Pattern) -> None:
        if kind == "compose" and pattern.given == ALL:
            return  # it may match nothing
        covered = [name for name in self.weights if self._covers(pattern, name)]
        if not covered:
            modules = ", ".join(self.modules) or "none"
            raise ValueError(f"{kind}={pattern} names no weight of this model. Modules: {modules}.")
        if kind == "compose" and self.matrices.isdisjoint(covered):
            raise ValueError(
                f"compose={pattern} names no matrix: {min(covered)} has one axis that counts, and stays "
                f"trained. Leave it out, or name it in freeze=."
            )

    def of(self, names: Iterable[str]) -> str:
        """Where a parameter with these names goes: "keep", "freeze" or "adapt".

        If both keep= and freeze= match, a literal name wins over other patterns.

        Raises:
            ValueError: both match, by a literal name in both or in neither.
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
        return [pattern for pattern in self.patterns[kind] if any(self._covers(pattern, n) for n in names)]

    def _covers(self, pattern: Pattern, name: str) -> bool:
        return any(pattern.covers(each) for each in self._both(name))

    def _both(self, name: str) -> set[str]:
        """A weight's dotted name, and the same without the wrappers that PyTorch puts around modules."""
        return {name, without_wrappers(name, self.streams)}


def _listed(kind: str, patterns: Given) -> list[str | type[nn.Module]]:
    if isinstance(patterns, str | type):
        text = shown(patterns)
        what = "text" if isinstance(patterns, str) else "class"
        raise ValueError(f"{kind} takes a list of patterns, got the {what} {text}: write {kind}=[{text}].")
    if not isinstance(patterns, Iterable):
        raise ValueError(f"{kind} takes a list of patterns, got {in_one_line(patterns)}.")
    patterns = list(patterns)
    for given in patterns:
        if not isinstance(given, str) and not (isinstance(given, type) and issubclass(given, nn.Module)):
            raise ValueError(
                f"{kind} takes names, shell patterns and classes of nn.Module, got {in_one_line(given)}."
            )
    return patterns


def in_one_line(value: object) -> str:
    """A value of the wrong kind, in one line."""
    if value is None or isinstance(value, int | float):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    return f"an object of type {type(value).__name__}"


def shown(given: str | type[nn.Module]) -> str:
    """A pattern as the user types it."""
    if isinstance(given, str):
        return repr(given)
    return f"{'nn.' * (getattr(nn, given.__name__, None) is given)}{given.__name__}"


def _within(name: str) -> Iterator[str]:
    """The root "", each module that contains a dotted name, and the name itself."""
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(len(parts) + 1))
