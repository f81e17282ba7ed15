"""Oxford 102 Flowers: found, downloaded or refused in one clear line; decoded once and held as bytes.

N images, C = 3 channels, H = W = image_size pixels.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.augmentation import Augmentation
from lottalora.data.batches.augmentation import drawn_from
from lottalora.data.batches.held_out import checked_hold_out
from lottalora.data.batches.held_out import held_out
from lottalora.data.batches.held_out import parts_of
from lottalora.data.batches.images import Batches
from lottalora.data.batches.images import Images
from lottalora.data.batches.images import fingerprint_of_images
from lottalora.data.sources.files import Files
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

CLASSES = 102
HELD_OUT = 2  # of the 20 images of each class that are not for testing
MEAN = (0.485, 0.456, 0.406)  # of ImageNet, with which torchvision's ViT was trained
STD = (0.229, 0.224, 0.225)
EVALUATION_BATCH = 128  # images; the score does not depend on it
FILES = Files(  # MD5 as in torchvision/datasets/flowers102.py
    title="Flowers102",
    loader="Flowers102",
    folder="flowers-102",
    sums={
        "imagelabels.mat": "e0620be6f572b9609742df49c70aed4d",
        "setid.mat": "a5357ecc9cb78c4bef273ce3793fc85c",
    },
    folders=["jpg"],
)


class Flowers102:
    """102 kinds of flowers: official training and validation part merged, official test part untouched.

    Of the merged 2,040 images, 20 of each class, a fixed 2 of each class (204 images) are held out as the
    part by which an epoch is chosen and training ended early: the paper trains on all 2,040, but then only
    test images are left to choose by, and these choose nothing here. 1,836 are trained on, 6,149 test.

    An image is shrunk or enlarged until its shorter side is `image_size` and cut to the square in its middle.
    All of them are decoded at each reading: 3 s for images of 96 pixels, about 40 s for the original ones.

    Source: Nilsback & Zisserman 2008, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/

    Args:
        root: folder that holds flowers-102 as torchvision lays it out.
        image_size: pixels, square.
        batch_size: images.
        augmentation: of the training images.
        hold_out: whether a tenth of the training examples is held out to choose the epoch by; if not, all are
            trained on and the last epoch counts.
        sample: made images, stripes in two colours for each class, in place of the real data.
    """

    train_examples = 1836

    def __init__(
        self,
        *,
        root: str,
        image_size: int,
        batch_size: int,
        augmentation: Augmentation,
        hold_out: bool = True,
        sample: bool = False,
    ) -> None:
        if type(image_size) is not int or image_size < 1:
            raise ValueError(f"data.image_size must be a whole number of pixels, got {image_size!r}.")
        self.root = Path(root)
        self.image_size = image_size
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.hold_out = checked_hold_out(hold_out)
        self.sample = checked_sample(sample)
        self.spec = DataSpec(
            in_shape=(3, image_size, image_size),
            out_dim=CLASSES,
            metric="accuracy",
            higher_is_better=True,
            chance=1 / CLASSES,
        )

    def read(self) -> "FlowerSplits":
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        train, validation, test = stripes(self.image_size) if self.sample else self._official()
        train, validation = parts_of(self.hold_out, train, validation)
        return FlowerSplits(
            train=train,
            validation=validation,
            test=test,
            batch_size=self.batch_size,
            augmentation=self.augmentation,
        )

    def _official(self) -> tuple[Images, Images, Images]:
        FILES.ensure(self.root)
        labels, parts = read_lists(self.root)
        merged = np.concatenate([parts["trnid"], parts["valid"]])
        train, validation = held_out(labels[merged], each=HELD_OUT)
        numbers = (merged[train], merged[validation], parts["tstid"])
        folder = self.root / FILES.folder / "jpg"
        return tuple(read_images(folder, part, labels, self.image_size) for part in numbers)


@dataclass(frozen=True, kw_only=True)
class FlowerSplits:
    """Train, validation and test part; the training images are changed anew in each epoch."""

    train: Images
    validation: Images | None  # None: all training images are trained on
    test: Images
    batch_size: int
    augmentation: Augmentation

    def train_batches(self, seed: int) -> "AugmentedBatches":
        return AugmentedBatches(
            self.train, augmentation=self.augmentation, batch_size=self.batch_size, seed=seed
        )

    def validation_batches(self) -> Batches | None:
        if self.validation is None:
            return None
        return evaluated(self.validation)

    def test_batches(self) -> Batches:
        return evaluated(self.test)

    def fingerprint(self) -> str:
        return fingerprint_of_images(self.train, self.validation, self.test)


class AugmentedBatches(order.Batches):
    """Batches of changed, normalised images (N, C, H, W) and the shares of their classes (N, 102).

    What is changed is a function of (seed, epoch, batch) alone, as the order is.

    Args:
        images: what is cut into batches.
        augmentation: how they are changed.
        batch_size: images.
        seed: of order and changes.
    """

    def __init__(self, images: Images, *, augmentation: Augmentation, batch_size: int, seed: int) -> None:
        super().__init__(len(images.labels), batch_size=batch_size, seed=seed)
        self.images = images
        self.augmentation = augmentation

    def batch(self, number: int, index: Tensor) -> tuple[Tensor, Tensor]:
        with drawn_from(self.sampler.seed, self.sampler.epoch, number):
            return self._changed(self.images.take(index))

    def _changed(self, images: Images) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([self.augmentation.image(image) for image in images.pixels])
        x = (pixels.float() - in_bytes(MEAN)) / in_bytes(STD)
        return self.augmentation.batch(x, images.labels, classes=CLASSES)


def evaluated(images: Images) -> Batches:
    """Return batches of one centre crop per image, in stored order."""
    return Batches(images, mean=in_bytes(MEAN), std=in_bytes(STD), batch_size=EVALUATION_BATCH)


def in_bytes(shares: tuple[float, ...]) -> Tensor:
    """Of each channel (3, 1, 1), from 0 to 255."""
    return 255 * torch.tensor(shares).view(-1, 1, 1)


def read_lists(root: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels from 0, by the number of an image (from 1), and the numbers of the official parts."""
    from scipy.io import loadmat

    lists = {name: loadmat(io.BytesIO(FILES.read(root, name)), squeeze_me=True) for name in FILES.sums}
    labels = lists["imagelabels.mat"]["labels"].astype(np.int64) - 1
    parts = lists["setid.mat"]
    by_number = np.concatenate([[-1], labels])  # there is no image 0
    return by_number, {name: parts[name].astype(np.int64) for name in ("trnid", "valid", "tstid")}


def read_images(folder: Path, numbers: np.ndarray, labels: np.ndarray, image_size: int) -> Images:
    """Read and resize the numbered JPEGs: images (N, 3, H, W), labels (N,)."""
    pixels = [read_image(folder / f"image_{number:05d}.jpg", image_size) for number in numbers]
    return Images(torch.stack(pixels), torch.from_numpy(labels[numbers]))


def read_image(path: Path, image_size: int) -> Tensor:
    """The square in the middle of an image, (3, image_size, image_size) as uint8."""
    from PIL import Image
    from PIL import ImageOps

    try:
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (image_size, image_size), Image.Resampling.BICUBIC)
    except OSError as error:
        raise ValueError(
            f"{path} is missing or damaged ({error}). Put the official file there, or delete "
            f"{path.parent.parent} and run again to download all of them anew."
        ) from error
    return torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1)  # (H, W, 3) → (3, H, W)


def stripes(image_size: int) -> tuple[Images, Images, Images]:
    """The built-in stand-in: 4, 1 and 2 images of each class, with its two colours in its direction."""
    generator = torch.Generator().manual_seed(0)
    colours = 255 * torch.rand(CLASSES, 2, 3, 1, 1, generator=generator)
    angles = math.pi * torch.rand(CLASSES, generator=generator)
    rows, columns = torch.meshgrid(*2 * [torch.linspace(0, 1, image_size)], indexing="ij")  # (H, W)

    def part(count: int) -> Images:
        labels = torch.arange(CLASSES).repeat_interleave(count)
        pixels = []
        for label in labels:
            shift = torch.rand((), generator=generator)
            along = rows * angles[label].sin() + columns * angles[label].cos() + shift
            striped = torch.where((4 * along).long() % 2 == 0, *colours[label])  # (3, H, W)
            noise = 16 * torch.randn(striped.shape, generator=generator)
            pixels.append((striped + noise).clamp(0, 255).to(torch.uint8))
        return Images(torch.stack(pixels), labels)

    return part(4), part(1), part(2)
