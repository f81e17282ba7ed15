"""MNIST for seed gating: each scaffold has digits of its own, and one adapter serves all.  N images."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.mnist import MNIST
from lottalora.data.spec import DataSpec

DIGITS = 10
OUTSIDE = 10  # the label of a digit that belongs to another scaffold


class GatedMNIST(MNIST):
    """MNIST in groups of digits, one for each scaffold; a digit of no group is never trained, and is tested.

    Source: the paper, Figure 3: seeds 42, 43, 44 and the digits 1–3, 4–6, 7–9.

    Args:
        root, batch_size, sample: as of MNIST.
        groups: the digits of each scaffold.
        out_of_class: whether an eleventh label says that a digit belongs to another scaffold. Then each
            scaffold is trained on all digits; without it, on its own alone.
    """

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        groups: Sequence[Sequence[int]],
        out_of_class: bool,
        sample: bool = False,
    ) -> None:
        super().__init__(root=root, batch_size=batch_size, sample=sample)
        self.groups = [list(group) for group in groups]
        digits = [digit for group in self.groups for digit in group]
        if len(set(digits)) < len(digits) or not set(digits) <= set(range(DIGITS)):
            raise ValueError(f"data.groups must hold each digit 0 … 9 at most once, got {self.groups}.")
        self.out_of_class = out_of_class
        widest = max(map(len, self.groups))
        chance = 1 - widest / len(digits) if out_of_class else 1 / widest  # by the most frequent answer
        self.spec = DataSpec(
            in_shape=(1, 28, 28),
            out_dim=DIGITS + out_of_class,
            metric="accuracy",
            higher_is_better=True,
            chance=chance,
        )

    def read(self) -> "GatedSplits":
        splits = super().read()
        trained = torch.tensor([digit for group in self.groups for digit in group])
        return GatedSplits(
            train=only(splits.train, trained),
            validation=only(splits.validation, trained),
            test=splits.test,
            mean=splits.mean,
            std=splits.std,
            batch_size=splits.batch_size,
            groups=self.groups,
            out_of_class=self.out_of_class,
        )


@dataclass(frozen=True, kw_only=True)
class GatedSplits(ImageSplits):
    """The three parts; digits of no group are in the test part alone."""

    groups: list[list[int]]
    out_of_class: bool

    def cut(self, batch: tuple[Tensor, Tensor], count: int) -> list[tuple[Tensor, Tensor]]:
        """What each of the `count` scaffolds is trained on: images and labels."""
        if count != len(self.groups):
            raise ValueError(
                f"resample.scaffolds={count}, but data.groups has {len(self.groups)}: one for each."
            )
        parts = [part_of(*batch, group, self.out_of_class) for group in self.groups]
        for group, (_, label) in zip(self.groups, parts, strict=True):
            if not len(label):
                digits = ", ".join(map(str, group))
                raise ValueError(
                    f"A batch of {len(batch[1])} images has none of the digits {digits}. Type a larger "
                    "data.batch_size."
                )
        return parts


def part_of(x: Tensor, label: Tensor, group: Sequence[int], out_of_class: bool) -> tuple[Tensor, Tensor]:
    """What a scaffold with this group of digits is asked: its own digits, or all with the rest outside."""
    own = torch.isin(label, torch.tensor(group, device=label.device))
    if out_of_class:
        return x, torch.where(own, label, OUTSIDE)
    return x[own], label[own]


def only(images: Images, digits: Tensor) -> Images:
    """Keep the images of these digits."""
    return replace(images, **vars(images.take(torch.isin(images.labels, digits).nonzero().flatten())))
