"""Batches that are trained on in parts, such as one part under each of several scaffolds.

Letters: N examples of a batch, k parts.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lottalora.data.batches.batch import parts_of
from lottalora.data.batches.batch import row_count
from lottalora.data.batches.order import Batches
from lottalora.data.batches.order import Order

Cut = Callable[[Any], Sequence[Any]]  # a batch in, its k parts out


class Parts:
    """The parts of each batch, one after the other: what Lightning takes for batches.

    A run goes on from the beginning of a batch, never from a part within it.

    Args:
        batches: what is cut.
        cut: from a batch to its parts.
        count: k, the same for every batch.
    """

    batch_sampler = None  # Lightning reads this of whatever has a sampler

    def __init__(self, batches: Batches, cut: Cut, count: int) -> None:
        self.batches = batches
        self.cut = cut
        self.count = count

    @property
    def sampler(self) -> Order:
        return self.batches.sampler

    def __getattr__(self, name: str) -> object:
        """What else a task reads of its batches, such as `labels`."""
        if name == "batches":  # not there yet
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return self.count * len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield from self.cut(batch)

    def state_dict(self) -> dict[str, int]:
        return self.batches.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batches.load_state_dict(state)


def whole(batch: Any, count: int) -> list[Any]:  # noqa: ANN401  whatever a model takes
    """The same batch k times."""
    return [batch] * count


def pieces(batch: Any, count: int) -> list[Any]:  # noqa: ANN401  tensors, or tuples of them, (N, …)
    """k pieces of a batch, as equal as can be, in its order.

    Raises:
        ValueError: the batch has fewer examples than there are pieces, or does not have one row for each
            example in all its tensors, as a graph does not.
    """
    rows = {row_count(part) for part in parts_of(batch)}
    if len(rows) != 1 or min(rows) == 0:
        raise ValueError(
            "A batch of these data is no list of examples that could be cut. Type mode=resample_batch, which "
            "does not cut it."
        )
    if isinstance(batch, Tensor):
        if len(batch) < count:
            raise ValueError(
                f"A batch of {len(batch)} examples cannot be cut into {count} parts. Type a data.batch_size "
                "that leaves a larger last batch, or a smaller resample.scaffolds."
            )
        return list(torch.tensor_split(batch, count))
    cut = zip(*(pieces(each, count) for each in batch), strict=True)
    make = type(batch)._make if hasattr(batch, "_make") else tuple
    return [make(part) for part in cut]
