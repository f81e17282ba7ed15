"""Sequences of unequal length at irregular times, held in memory end to end, batched by length.

Letters: N sequences, S steps of all of them, B sequences of a batch, T steps of its longest, F inputs.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lottalora.data.order import Order

EVALUATION_BATCH = 200  # sequences; the score does not depend on it
POOL = 10  # batches of training that are sorted by length together: 14 % of the steps are padding


class Sequences(NamedTuple):
    """One batch: inputs (B, T, F), hours since the step before (B, T), steps of each (B,)."""

    inputs: Tensor
    elapsed: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class Records:
    """One part of a split: inputs (S, F), elapsed (S,) in hours, lengths and labels (N,)."""

    inputs: Tensor
    elapsed: Tensor
    lengths: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> tuple[Sequences, Tensor]:
        """The sequences of `index`, padded with zeros to the longest of them, and their labels."""
        ends = self.lengths.cumsum(0)
        steps = [
            slice(int(end - length), int(end))
            for end, length in zip(ends[index], self.lengths[index], strict=True)
        ]
        inputs, elapsed = (
            pad_sequence([part[each] for each in steps], batch_first=True)
            for part in (self.inputs, self.elapsed)
        )
        return Sequences(inputs, elapsed, self.lengths[index]), self.labels[index]


class Batches:
    """Batches of sequences of similar length; which ones, and in what order, is a function of (seed, epoch).

    An epoch's random order is cut into pools of ten batches; each is sorted by length and cut, and all
    batches are then put into a random order. Without a seed everything is one pool, the shortest first.

    Args:
        records: what is cut into batches.
        batch_size: sequences.
        seed: of the order, or None.
    """

    def __init__(self, records: Records, *, batch_size: int, seed: int | None = None) -> None:
        self.records = records
        self.batch_size = batch_size
        self.sampler = Order(len(records.labels), seed)
        self.batch_sampler = None  # Lightning reads this of whatever has a sampler

    def __len__(self) -> int:
        return -(-len(self.records.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Sequences, Tensor]]:
        batches = self.batches()
        order = Order(len(batches), self.sampler.seed)
        order.set_epoch(self.sampler.epoch)
        for i in order.index().tolist():
            yield self.records.batch(batches[i])

    def batches(self) -> list[Tensor]:
        """The indices of each batch of this epoch."""
        shuffled = self.sampler.index()
        pool = len(shuffled) if self.sampler.seed is None else POOL * self.batch_size
        batches = []
        for part in shuffled.split(pool):
            by_length = part[self.records.lengths[part].argsort(stable=True)]
            batches += by_length.split(self.batch_size)
        return batches


@dataclass(frozen=True, kw_only=True)
class SequenceSplits:
    """Train and test part of a data set; there is no validation part to choose an epoch by."""

    train: Records
    test: Records
    batch_size: int

    def train_batches(self, seed: int) -> Batches:
        return Batches(self.train, batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> None:
        return None

    def test_batches(self) -> Batches:
        return Batches(self.test, batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        """SHA-256 over shapes and values of both parts: data, split and scaling in one number."""
        digest = hashlib.sha256()
        for part in (self.train, self.test):
            for values in (part.inputs, part.elapsed, part.lengths, part.labels):
                digest.update(str(tuple(values.shape)).encode())
                digest.update(values.contiguous().numpy())
        return digest.hexdigest()
