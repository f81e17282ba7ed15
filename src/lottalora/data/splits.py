"""What a data module gives once it has read its data."""

from collections.abc import Iterable
from collections.abc import Sized
from typing import Protocol

from lottalora.data.batches.order import Order


class Batches(Sized, Iterable, Protocol):
    """Batches of one part, as Lightning takes them: anew at each `iter`, in the order of `sampler`."""

    sampler: Order
    batch_sampler: None  # Lightning reads this of whatever has a sampler


class Splits(Protocol):
    """Train, validation and test part of a data set."""

    def train_batches(self, seed: int) -> Batches:
        """Their order is a function of (seed, epoch)."""

    def validation_batches(self) -> Batches | None:
        """None where the protocol has no such part: then the weights of the last epoch are scored."""

    def test_batches(self) -> Batches: ...

    def fingerprint(self) -> str:
        """SHA-256 over data and split: rows with different ones are never compared."""
