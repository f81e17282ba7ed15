"""Examples of unequal length, batched with others of about their own: little of a batch is padding."""

import hashlib
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import Protocol

from torch import Tensor

from lottalora.data.batches.order import Order
from lottalora.data.batches.order import Resumable

EVALUATION_BATCH = 200  # examples; the score does not depend on it
POOL = 10  # batches of training that are sorted by length together


class Part(Protocol):
    """One part of a split: lengths and labels (N,)."""

    lengths: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> tuple[Any, Tensor]:
        """The examples of `index`, padded to the longest of them, and their labels."""


class Batches(Resumable):
    """Batches of examples of similar length; which ones, and in what order, is a function of (seed, epoch).

    An epoch's random order is cut into pools of a few batches; each is sorted by length and cut, and all
    batches are then put into a random order. Without a seed everything is one pool, the shortest first.

    Args:
        part: what is cut into batches.
        batch_size: examples.
        seed: of the order, or None.
        pool: batches that are sorted together.
    """

    def __init__(self, part: Part, *, batch_size: int, seed: int | None = None, pool: int = POOL) -> None:
        self.part = part
        self.batch_size = batch_size
        self.pool = pool
        self.sampler = Order(len(part.labels), seed)
        self.batch_sampler = None  # Lightning reads this of whatever has a sampler

    def __len__(self) -> int:
        return -(-len(self.part.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        batches = self.batches()
        order = Order(len(batches), self.sampler.seed)
        order.set_epoch(self.sampler.epoch)
        places = order.index().tolist()
        for number in self.numbers():
            yield self.part.batch(batches[places[number]])

    def batches(self) -> list[Tensor]:
        """The indices of each batch of this epoch."""
        shuffled = self.sampler.index()
        pool = len(shuffled) if self.sampler.seed is None else self.pool * self.batch_size
        batches = []
        for part in shuffled.split(pool):
            by_length = part[self.part.lengths[part].argsort(stable=True)]
            batches += by_length.split(self.batch_size)
        return batches


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over shapes and values."""
    digest = hashlib.sha256()
    for values in tensors:
        digest.update(str(tuple(values.shape)).encode())
        digest.update(values.contiguous().numpy())
    return digest.hexdigest()
