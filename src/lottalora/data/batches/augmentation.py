"""Random changes of training images, drawn from a stream of their own.

N images, C channels, H × W pixels.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from lottalora.data.batches.order import seed_from


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Flip, RandAugment and erasing of single images; Mixup or CutMix of a batch, which gives soft labels.

    Args:
        flip: probability of a horizontal flip.
        operations, magnitude: of RandAugment, whose magnitudes go from 0 to 30; 0 operations leave it out.
            Cubuk et al. 2019, https://arxiv.org/abs/1909.13719
        erasing: probability that a rectangle becomes the mean colour. https://arxiv.org/abs/1708.04896
        mix: probability that a batch is mixed.
        cutmix_share: of the mixed batches; the others go through Mixup.
        mixup: α of Mixup's Beta(α, α). https://arxiv.org/abs/1710.09412
        cutmix: α of CutMix. https://arxiv.org/abs/1905.04899
    """

    flip: float
    operations: int
    magnitude: int
    erasing: float
    mix: float
    cutmix_share: float
    mixup: float
    cutmix: float

    def __post_init__(self) -> None:
        for name in ("flip", "erasing", "mix", "cutmix_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"data.augmentation.{name} is a probability, from 0 to 1, got {value!r}.")
        if not 0 <= self.magnitude <= 30:
            raise ValueError(f"data.augmentation.magnitude goes from 0 to 30, got {self.magnitude!r}.")

    @cached_property
    def transforms(self) -> dict:
        from torchvision.transforms import v2  # takes seconds to import

        return {
            "flip": v2.RandomHorizontalFlip(self.flip),
            "randaugment": v2.RandAugment(self.operations, self.magnitude),
            "erasing": v2.RandomErasing(self.erasing),
            "mixup": v2.MixUp(alpha=self.mixup),
            "cutmix": v2.CutMix(alpha=self.cutmix),
        }

    def image(self, pixels: Tensor) -> Tensor:
        """Before normalisation: (C, H, W) as uint8, and so returned."""
        return self.transforms["randaugment"](self.transforms["flip"](pixels))

    def batch(self, x: Tensor, label: Tensor, *, classes: int) -> tuple[Tensor, Tensor]:
        """After normalisation: (N, C, H, W) and labels (N,) → the same and shares of classes (N, classes)."""
        x = torch.stack([self.transforms["erasing"](image) for image in x])
        shares = F.one_hot(label, classes).float()
        if torch.rand(()) >= self.mix:
            return x, shares
        way = "cutmix" if torch.rand(()) < self.cutmix_share else "mixup"
        return self.transforms[way](x, shares)


@contextlib.contextmanager
def drawn_from(*words: object) -> Iterator[None]:
    """Inside the block PyTorch's CPU generator is a function of `words`; after it, it is as it was.

    So every arm of a comparison sees the same images for the same seed, whatever else draws random numbers,
    and a run that goes on from a checkpoint sees those that it would have seen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(*words))
        yield
