"""Batches of an epoch: their order, and how a run is resumed in the middle of one."""

import hashlib
from abc import ABC
from abc import abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Order:
    """The order of the examples: as stored, or a permutation that is a function of (seed, epoch) alone.

    So every arm of a comparison sees the same batches for the same seed, whatever else draws random numbers.
    Lightning calls `set_epoch` of a loader's `sampler` before each epoch.
    """

    def __init__(self, count: int, seed: int | None) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def index(self) -> Tensor:
        if self.seed is None:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=self.generator())

    def generator(self, *purpose: str) -> torch.Generator:
        """Return a new generator for this epoch; those of different purposes draw independently."""
        return torch.Generator().manual_seed(seed_from(self.seed, self.epoch, *purpose))


class Batches(ABC):
    """Batches of one part of a data set, as Lightning takes them.

    Their order is a function of (seed, epoch), and a run can be resumed in the middle of an epoch: Lightning
    keeps `state_dict()` in a checkpoint and restores it before the next `iter`. A final class gives `batch`.

    Args:
        count: examples; the last, smaller batch is not dropped.
        batch_size: examples of a batch.
        seed: of the order; None keeps the order of the data set.
    """

    batch_sampler = None  # Lightning reads this of whatever has a sampler
    served = 0  # batches of this epoch so far
    first = 0  # batch that the next epoch starts with; above 0 only after a resume

    def __init__(self, count: int, *, batch_size: int, seed: int | None = None) -> None:
        self.batch_size = batch_size
        self.sampler = Order(count, seed)

    @abstractmethod
    def batch(self, number: int, index: Tensor) -> Any:  # noqa: ANN401  what the model takes, and labels
        """Return batch `number` of this epoch, made of the examples `index`, (N,)."""

    def index(self) -> Sequence[Tensor]:
        """Return the examples of each batch of this epoch."""
        return self.sampler.index().split(self.batch_size)

    def skip(self, number: int, index: Tensor) -> None:  # noqa: B027  most classes draw nothing
        """Advance random streams as `batch` does, for a batch that was served before a resume."""

    def __len__(self) -> int:
        return -(-self.sampler.count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        first, self.first = self.first, 0
        for number, index in enumerate(self.index()):
            if number < first:
                self.skip(number, index)
                continue
            self.served = number + 1
            yield self.batch(number, index)

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.served % len(self)}  # after the last batch: the start of the next epoch

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["batch"]


def seed_from(*words: object) -> int:
    """Return a seed for PyTorch, a function of these words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
