"""The account of a wrapped model: what is trained, what is frozen, and how many numbers that is."""

from dataclasses import asdict
from dataclasses import dataclass

from torch import nn

from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import find_matrices


@dataclass(frozen=True)
class Entry:
    """What happened to one matrix.

    Args:
        name: the matrix's dotted name in the model before `wrap`.
        shape: its shape before `wrap`.
        place: "adapt" (random and frozen, with an adapter), "freeze" (random and frozen) or "keep" (dense,
            and trained unless its requires_grad is False).
        rank: the rank of the adapter; None without an adapter.
        trained: the count of trained numbers: A, B, β and the parameters of options, or the kept matrix.
        frozen: the count of frozen numbers, drawn from the seed or constants of the model.
        note: anything unusual about the matrix.
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
    """What `wrap` did, as counts of parameters.

    Args:
        entries: one entry per matrix.
        vectors_trained: the count of numbers in trained vectors: biases, norms, class tokens, layer scales.
        vectors_frozen: the count of numbers in frozen vectors.
        full: the count of parameters of the model before `wrap`.
    """

    entries: tuple[Entry, ...]
    vectors_trained: int
    vectors_frozen: int
    full: int

    @classmethod
    def of_dense(cls, model: nn.Module) -> "Account":
        """The account of a model without a scaffold."""
        entries = tuple(kept(matrix) for matrix in find_matrices(model))
        full = sum(p.numel() for p in model.parameters())
        matrices = sum(entry.trained + entry.frozen for entry in entries)
        vectors = trained_numbers(model) - sum(entry.trained for entry in entries)
        return cls(entries, vectors, full - matrices - vectors, full)

    @property
    def trainable(self) -> int:
        """The count of all trained numbers: adapters, kept matrices and vectors."""
        return sum(entry.trained for entry in self.entries) + self.vectors_trained

    @property
    def internal_trainable(self) -> int:
        """The count of trained numbers of adapted matrices: A, B, β and the parameters of options."""
        return sum(entry.trained for entry in self.entries if entry.place == "adapt")

    @property
    def full_plus_adapters(self) -> int:
        """The parameters of the full model plus the adapters: the other denominator of "trainable %"."""
        return self.full + self.internal_trainable

    def counts(self) -> dict[str, int]:
        """The four totals by name."""
        names = ("trainable", "internal_trainable", "full", "full_plus_adapters")
        return {name: getattr(self, name) for name in names}

    def as_dict(self, model: nn.Module | None = None) -> dict[str, object]:
        """All fields and totals as plain data, for JSON.

        Args:
            model: the wrapped model, to add to each entry the form that it took in its last training step.
        """
        entries = [asdict(entry) for entry in self.entries]
        if model is not None:
            entries = [
                plain | {"form": _form_of(entry, model)}
                for plain, entry in zip(entries, self.entries, strict=True)
            ]
        return {**asdict(self), "entries": entries, **self.counts()}

    def table(self, model: nn.Module | None = None) -> str:
        """The account as text: one line per matrix, then the totals.

        Args:
            model: the wrapped model, for a column with the form that each matrix took in its last training
                step (see `set_fused`).
        """
        head = ("matrix", "shape", "place", "rank", "trained", "frozen", "" if model is None else "form", "")
        lines = [head, *(_cells(entry, _form_of(entry, model)) for entry in self.entries)]
        vectors = ("vectors", "", "", "", f"{self.vectors_trained:,}", f"{self.vectors_frozen:,}", "", "")
        frozen = sum(entry.frozen for entry in self.entries) + self.vectors_frozen
        lines += [vectors, ("total", "", "", "", f"{self.trainable:,}", f"{frozen:,}", "", "")]
        if model is None:
            lines = [(*line[:6], line[-1]) for line in lines]
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = [_line(line, widths) for line in lines]
        of_full, of_both = (100 * self.trainable / max(n, 1) for n in (self.full, self.full_plus_adapters))
        text.append(f"trainable: {of_full:.2f} % of the full model ({self.full:,}),")
        text.append(f"           {of_both:.2f} % of full model + adapters ({self.full_plus_adapters:,})")
        return "\n".join(text)


def trained_numbers(model: nn.Module) -> int:
    """How many numbers the parameters of a model have that ask for a gradient."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def kept(matrix: Matrix) -> Entry:
    """The entry of a matrix that `wrap` leaves unchanged: dense and trained, or a constant."""
    notes = [f"tied: {', '.join(matrix.names[1:])}"] if len(matrix.owners) > 1 else []
    trained, frozen = matrix.value.numel(), 0
    if not matrix.parameter.requires_grad:
        trained, frozen = frozen, trained
        notes.append("a constant: requires_grad is False")
    return Entry(matrix.name, tuple(matrix.value.shape), "keep", None, trained, frozen, "; ".join(notes))


def _form_of(entry: Entry, model: nn.Module | None) -> str:
    """The form that a matrix's layer took last; empty where it has none, or was not called."""
    if model is None or entry.place == "keep":
        return ""
    module: nn.Module | None = model
    for part in entry.name.split(".")[:-1]:
        module = getattr(module, part, None)
    return str(module.taken or "") if isinstance(module, LottaLayer) else ""


def _cells(entry: Entry, form: str) -> tuple[str, ...]:
    shape = " × ".join(str(n) for n in entry.shape)
    rank = "" if entry.rank is None else str(entry.rank)
    return entry.name, shape, entry.place, rank, f"{entry.trained:,}", f"{entry.frozen:,}", form, entry.note


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    left = (0, 1, 2, 6, 7)
    return "  ".join(
        c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ).rstrip()
