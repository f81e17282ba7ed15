"""Sequences of unequal length at irregular times, held in memory end to end, batched by length.

Letters: N sequences, S steps of all of them, B sequences of a batch, T steps of its longest, F inputs.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lottalora.data.batches.batch import Sequences
from lottalora.data.batches.by_length import EVALUATION_BATCH
from lottalora.data.batches.by_length import Batches
from lottalora.data.fingerprint import fingerprint
from lottalora.data.fingerprint import with_shapes


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
        parts = (self.train, self.test)
        arrays = [each for part in parts for each in (part.inputs, part.elapsed, part.lengths, part.labels)]
        return fingerprint(with_shapes(arrays))
