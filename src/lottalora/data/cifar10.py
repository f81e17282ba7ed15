"""CIFAR-10, read into memory as bytes.  N images."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lottalora.data.batches.held_out import checked_hold_out
from lottalora.data.batches.held_out import parts_of
from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.batches.images import crop_and_flip
from lottalora.data.batches.images import hold_out_a_tenth
from lottalora.data.digits import enlarged_digits
from lottalora.data.sources.files import Files
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
FILES = Files(  # MD5 as in torchvision/datasets/cifar.py
    title="CIFAR-10",
    loader="CIFAR10",
    folder="cifar-10-batches-py",
    sums={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)


class CIFAR10:
    """Photographs of ten classes, 32×32 in colour: 50,000 for training, the official test images untouched.

    The paper names no part to choose the epoch by, so 5,000 fixed training images are held out for that, and
    45,000 are trained on, as He et al. do. These are augmented as there: cropped at random out of the image
    with 4 black pixels on each side, and mirrored or not. Pixels are normalised by mean and std of each
    channel.

    Sources: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009; He et al. 2015,
    https://arxiv.org/abs/1512.03385, Section 4.2.

    Args:
        root: folder that holds cifar-10-batches-py as torchvision lays it out.
        batch_size: images.
        hold_out: whether a tenth of the training examples is held out to choose the epoch by; if not, all are
            trained on and the last epoch counts.
        sample: scikit-learn's digits, enlarged to 32×32 in three equal channels, in place of the real data.
    """

    spec = DataSpec(in_shape=(3, 32, 32), out_dim=10, metric="accuracy", higher_is_better=True, chance=0.1)
    train_examples = 45_000

    def __init__(self, *, root: str, batch_size: int, hold_out: bool = True, sample: bool = False) -> None:
        self.root = Path(root)
        self.batch_size = batch_size
        self.hold_out = checked_hold_out(hold_out)
        self.sample = checked_sample(sample)

    def read(self) -> ImageSplits:
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        train, validation, test = enlarged_digits(32, channels=3) if self.sample else self._official()
        train, validation = parts_of(self.hold_out, train, validation)
        return ImageSplits(
            train=train,
            validation=validation,
            test=test,
            mean=255 * torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1),  # of the 50,000 training images
            std=255 * torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1),
            batch_size=self.batch_size,
            augment=crop_and_flip,
        )

    def _official(self) -> tuple[Images, Images, Images]:
        FILES.ensure(self.root)
        return *hold_out_a_tenth(read_images(self.root, TRAIN)), read_images(self.root, ["test_batch"])


def read_images(root: Path, names: Sequence[str]) -> Images:
    """Read pickled batches whose MD5 is right: images (N, 3, 32, 32), labels (N,)."""
    # A pickle may run code, which is why its MD5 is looked at first.
    batches = [pickle.loads(FILES.read(root, name), encoding="latin1") for name in names]
    pixels = np.concatenate([batch["data"] for batch in batches])  # (N, 3 · 32 · 32)
    labels = np.concatenate([batch["labels"] for batch in batches])
    return Images(torch.from_numpy(pixels).view(-1, 3, 32, 32), torch.from_numpy(labels).long())
