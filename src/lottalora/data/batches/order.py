"""The order of the examples in an epoch."""

import hashlib
from collections.abc import Iterator

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
        """Of this epoch's random draws, anew at each call; one purpose's are independent of another's."""
        return torch.Generator().manual_seed(seed_from(self.seed, self.epoch, *purpose))


class Resumable:
    """Batches of epochs so long that a run must be able to go on in the middle of one.

    A subclass has a length and takes the numbers of its batches from `numbers()`. Lightning keeps
    `state_dict()` in a checkpoint, and gives it back before the next `iter`.
    """

    given = 0  # batches of this epoch so far
    first = 0  # where the next epoch begins; not at 0 only where a run goes on

    def numbers(self) -> Iterator[int]:
        """The numbers of this epoch's batches that are still to be given."""
        first, self.first = self.first, 0
        for number in range(first, len(self)):
            self.given = number + 1
            yield number

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.given % len(self)}  # after the last batch: the beginning of the next epoch

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.first = state["batch"]


def seed_from(*words: object) -> int:
    """A seed for PyTorch that is a function of these words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)
