"""The interface of a data set that has been read: batches of each part, and a fingerprint."""

from typing import Protocol

from lottalora.data.batches.order import Batches


class Splits(Protocol):
    """Train, validation and test part of a data set."""

    def train_batches(self, seed: int) -> Batches:
        """Their order is a function of (seed, epoch)."""

    def validation_batches(self) -> Batches | None:
        """None where the protocol has no such part: then the weights of the last epoch are scored."""

    def test_batches(self) -> Batches: ...

    def fingerprint(self) -> str:
        """SHA-256 over data and split: rows with different ones are never compared."""
