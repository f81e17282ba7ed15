"""Images held in memory as bytes, batched, augmented and normalised there.

Letters: N images, C channels, H × W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.fingerprint import fingerprint

EVALUATION_BATCH = 1000  # images; the score does not depend on it
SPLIT_SEED = 0  # of the part that is held out; never the run's seed
Augment = Callable[[Tensor, Generator], Tensor]  # pixels (N, C, H, W) in, changed pixels out


@dataclass(frozen=True)
class Images:
    """One part of a split: pixels (N, C, H, W) as uint8, labels (N,) as int64."""

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(
                f"{len(self.pixels)} images but {len(self.labels)} labels: the files do not belong together."
            )

    def take(self, index: Tensor) -> "Images":
        return Images(self.pixels[index], self.labels[index])


class Batches(order.Batches):
    """Batches of normalised images (N, C, H, W) and labels (N,).

    Args:
        images: what is cut into batches.
        mean, std: of the pixels, in bytes, one number or (C, 1, 1); the input of a network is
            (pixel − mean) / std.
        batch_size: images.
        seed: of the order and of the augmentation; None keeps the order of the data set.
        augment: changes the pixels of each batch; what it draws is a function of seed and epoch, too.
    """

    def __init__(
        self,
        images: Images,
        *,
        mean: float | Tensor,
        std: float | Tensor,
        batch_size: int,
        seed: int | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__(len(images.labels), batch_size=batch_size, seed=seed)
        self.images = images
        self.mean = mean
        self.std = std
        self.augment = augment
        self.generator = Generator()

    def batch(self, number: int, index: Tensor) -> tuple[Tensor, Tensor]:
        images = self.images.take(index)
        return (self._augmented(number, images).float() - self.mean) / self.std, images.labels

    def skip(self, number: int, index: Tensor) -> None:
        if self.augment:
            self._augmented(number, self.images.take(index))

    def _augmented(self, number: int, images: Images) -> Tensor:
        """One stream of random draws runs through all batches of an epoch."""
        if number == 0:
            self.generator = self.sampler.generator("augment")
        return self.augment(images.pixels, self.generator) if self.augment else images.pixels


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    """The three parts of a data set, mean and std of its bytes, and what changes the training images."""

    train: Images
    validation: Images | None  # None: all training images are trained on
    test: Images
    mean: float | Tensor
    std: float | Tensor
    batch_size: int
    augment: Augment | None = None

    def train_batches(self, seed: int) -> Batches:
        return Batches(
            self.train,
            mean=self.mean,
            std=self.std,
            batch_size=self.batch_size,
            seed=seed,
            augment=self.augment,
        )

    def validation_batches(self) -> Batches | None:
        if self.validation is None:
            return None
        return Batches(self.validation, mean=self.mean, std=self.std, batch_size=EVALUATION_BATCH)

    def test_batches(self) -> Batches:
        return Batches(self.test, mean=self.mean, std=self.std, batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        return fingerprint_of_images(self.train, self.validation, self.test)


def fingerprint_of_images(*parts: Images | None) -> str:
    """SHA-256 over shapes, pixels and labels of all parts: data and split in one number."""
    return fingerprint(
        each
        for part in filter(None, parts)
        for each in (str(tuple(part.pixels.shape)), part.pixels, part.labels)
    )


def hold_out_a_tenth(images: Images) -> tuple[Images, Images]:
    """Training and validation part, the same at every run: drawn from NumPy's frozen legacy stream."""
    index = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(images.labels)))
    held_out = len(index) // 10
    return images.take(index[held_out:].sort().values), images.take(index[:held_out].sort().values)


def crop_and_flip(pixels: Tensor, generator: Generator, *, margin: int = 4) -> Tensor:
    """Each image cropped at random out of itself with a black margin, and mirrored with probability 1/2.

    Args:
        pixels: (N, C, H, W), on any device; the result has the same shape and device.
        generator: of the draws, on the CPU, so that every device sees the same images.
        margin: pixels on each side.
    """
    count, channels, height, width = pixels.shape
    top, left = torch.randint(2 * margin + 1, (2, count, 1), generator=generator)
    mirrored = torch.randint(2, (count, 1), generator=generator).bool()
    along = torch.arange(width)
    columns = left + torch.where(mirrored, along.flip(0), along)  # (N, W)
    rows = top + torch.arange(height)  # (N, H)
    places = rows[:, :, None] * (width + 2 * margin) + columns[:, None, :]  # (N, H, W)
    places = places.view(count, 1, -1).expand(-1, channels, -1).to(pixels.device)
    return F.pad(pixels, [margin] * 4).flatten(2).gather(2, places).view_as(pixels)
