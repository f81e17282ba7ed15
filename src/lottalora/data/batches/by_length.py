"""Batches of examples of similar length, so that little of a batch is padding."""

from typing import Any
from typing import Protocol

from torch import Tensor

from lottalora.data.batches import order

EVALUATION_BATCH = 64  # examples that fit in a cache: 0.7 of the time of 200; the score does not depend on it
POOL = 10  # batches of training that are sorted by length together


class Part(Protocol):
    """One part of a split: lengths and labels (N,)."""

    lengths: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> tuple[Any, Tensor]:
        """The examples of `index`, padded to the longest of them, and their labels."""


class Batches(order.Batches):
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
        super().__init__(len(part.labels), batch_size=batch_size, seed=seed)
        self.part = part
        self.pool = pool

    def batch(self, number: int, index: Tensor) -> tuple[Any, Tensor]:
        return self.part.batch(index)

    def index(self) -> list[Tensor]:
        batches = self._sorted_pools()
        shuffled = order.Order(len(batches), self.sampler.seed)
        shuffled.set_epoch(self.sampler.epoch)
        return [batches[place] for place in shuffled.index().tolist()]

    def _sorted_pools(self) -> list[Tensor]:
        """The examples of each batch, pool by pool."""
        shuffled = self.sampler.index()
        pool = len(shuffled) if self.sampler.seed is None else self.pool * self.batch_size
        batches = []
        for part in shuffled.split(pool):
            by_length = part[self.part.lengths[part].argsort(stable=True)]
            batches += by_length.split(self.batch_size)
        return batches
