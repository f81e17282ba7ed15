"""Images held in memory as bytes, batched and normalised there.  N images, C channels, H × W pixels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from lottalora.data.order import Order

EVALUATION_BATCH = 1000  # images; the score does not depend on it


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


class Batches:
    """Batches of normalised images (N, C, H, W) and labels (N,); the last, smaller one is not dropped.

    Args:
        images: what is cut into batches.
        mean, std: of the pixels, in bytes, of all channels or of each (C, 1, 1); the input of a network is
            (pixel − mean) / std.
        batch_size: images.
        seed: of the order; None keeps the order of the data set.
    """

    def __init__(
        self,
        images: Images,
        *,
        mean: float | Tensor,
        std: float | Tensor,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        self.images = images
        self.mean = mean
        self.std = std
        self.batch_size = batch_size
        self.sampler = Order(len(images.labels), seed)
        self.batch_sampler = None  # Lightning reads this of whatever has a sampler

    def __len__(self) -> int:
        return -(-len(self.images.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for index in self.sampler.index().split(self.batch_size):
            batch = self.images.take(index)
            yield (batch.pixels.float() - self.mean) / self.std, batch.labels


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    """Train, validation and test part of a data set, and the mean and std of its pixels in bytes."""

    train: Images
    validation: Images
    test: Images
    mean: float
    std: float
    batch_size: int

    def train_batches(self, seed: int) -> Batches:
        return Batches(self.train, mean=self.mean, std=self.std, batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> Batches:
        return Batches(self.validation, mean=self.mean, std=self.std, batch_size=EVALUATION_BATCH)

    def test_batches(self) -> Batches:
        return Batches(self.test, mean=self.mean, std=self.std, batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        return fingerprint(self.train, self.validation, self.test)


def fingerprint(*parts: Images) -> str:
    """SHA-256 over shapes, pixels and labels of all parts: data and split in one number."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(tuple(part.pixels.shape)).encode())
        digest.update(part.pixels.contiguous().numpy())
        digest.update(part.labels.contiguous().numpy())
    return digest.hexdigest()
