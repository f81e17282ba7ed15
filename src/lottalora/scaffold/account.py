"""Where every weight of a model went."""

from dataclasses import asdict
from dataclasses import dataclass

from torch import nn

from lottalora.scaffold.matrices import Matrix
from lottalora.scaffold.matrices import find_matrices


@dataclass(frozen=True)
class Entry:
    """One matrix.

    Args:
        name: its dotted name in the model that was wrapped.
        shape: as it was.
        place: "adapt" (random, frozen, with an adapter), "freeze" (random, frozen) or "keep" (dense,
            trained).
        rank: of the adapter; None where there is none.
        trained: numbers trained in its place: A, B, β and the options' own, or the matrix itself where kept.
        frozen: numbers that are drawn from the seed, or constants of the model.
        note: what is unusual about it.
    """

    name: str
    shape: tuple[int, ...]
    place: str
    rank: int | None
    trained: int
    frozen: int
    note: str = ""


@dataclass(frozen=True)
class Account:
    """What `wrap` did, in numbers of parameters.

    Args:
        entries: every matrix, once each.
        vectors_trained: numbers in trained parameters of at most one axis that counts: biases, norms, class
            tokens, layer scales.
        vectors_frozen: the same, frozen at their value.
        full: the parameters of the model before it was wrapped.
    """

    entries: tuple[Entry, ...]
    vectors_trained: int
    vectors_frozen: int
    full: int

    @classmethod
    def of_dense(cls, model: nn.Module) -> "Account":
        """The account of a model that is trained in full."""
        entries = tuple(kept(matrix) for matrix in find_matrices(model))
        full = sum(p.numel() for p in model.parameters())
        matrices = sum(entry.trained + entry.frozen for entry in entries)
        return cls(entries, full - matrices, 0, full)

    @property
    def trainable(self) -> int:
        """All that is trained: adapters, kept matrices, biases and norms."""
        return sum(entry.trained for entry in self.entries) + self.vectors_trained

    @property
    def internal_trainable(self) -> int:
        """What is trained inside the adapted matrices: A, B, β, and the options' own parameters."""
        return sum(entry.trained for entry in self.entries if entry.place == "adapt")

    @property
    def full_plus_adapters(self) -> int:
        """The full model and the adapters beside it: the other denominator of "trainable %"."""
        return self.full + self.internal_trainable

    def counts(self) -> dict[str, int]:
        """The four totals by name."""
        names = ("trainable", "internal_trainable", "full", "full_plus_adapters")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, object]:
        """Everything as plain data, for JSON."""
        return {**asdict(self), "entries": [asdict(entry) for entry in self.entries], **self.counts()}

    def table(self) -> str:
        """The account as text: a line a matrix, then the totals."""
        head = ("matrix", "shape", "place", "rank", "trained", "frozen", "")
        lines = [head, *(_cells(entry) for entry in self.entries)]
        vectors = (
            "vectors",
            "",
            "",
            "",
            f"{self.vectors_trained:,}",
            f"{self.vectors_frozen:,}",
            "",
        )
        frozen = sum(entry.frozen for entry in self.entries) + self.vectors_frozen
        lines += [vectors, ("total", "", "", "", f"{self.trainable:,}", f"{frozen:,}", "")]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = [_line(line, widths) for line in lines]
        of_full, of_both = (100 * self.trainable / max(n, 1) for n in (self.full, self.full_plus_adapters))
        text.append(f"trainable: {of_full:.2f} % of the full model ({self.full:,}),")
        text.append(f"           {of_both:.2f} % of full model + adapters ({self.full_plus_adapters:,})")
        return "\n".join(text)


def kept(matrix: Matrix) -> Entry:
    """The entry of a matrix that stays as it is: dense and trained, or a constant."""
    notes = [f"tied: {', '.join(matrix.names[1:])}"] if len(matrix.owners) > 1 else []
    trained, frozen = matrix.value.numel(), 0
    if matrix.fixed:
        trained, frozen = frozen, trained
        notes.append("a constant: requires_grad is False")
    return Entry(matrix.name, tuple(matrix.value.shape), "keep", None, trained, frozen, "; ".join(notes))


def _cells(entry: Entry) -> tuple[str, ...]:
    shape = " × ".join(str(n) for n in entry.shape)
    rank = "" if entry.rank is None else str(entry.rank)
    return entry.name, shape, entry.place, rank, f"{entry.trained:,}", f"{entry.frozen:,}", entry.note


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = (0, 1, 2, 6)
    return "  ".join(
        c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
