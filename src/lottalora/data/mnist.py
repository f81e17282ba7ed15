"""MNIST, read into memory as bytes.  N images."""

from pathlib import Path

import torch

from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.batches.images import hold_out_a_tenth
from lottalora.data.digits import enlarged_digits
from lottalora.data.sources.files import Files
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

FILES = Files(  # MD5 of the four official files, packed as in torchvision/datasets/mnist.py
    title="MNIST",
    loader="MNIST",
    folder="MNIST/raw",
    sums={
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    packed={
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)


class MNIST:
    """Handwritten digits, 28×28 grey: 60,000 training images split 90/10, the official test images untouched.

    Pixels are normalised with mean 0.1307 and std 0.3081 (the paper, MNIST protocol).
    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, http://yann.lecun.com/exdb/mnist/

    Args:
        root: folder that holds MNIST/raw as torchvision lays it out; packed (.gz) files are read as they are.
        batch_size: images.
        sample: scikit-learn's digits, enlarged to 28×28, in place of the real data.
    """

    spec = DataSpec(in_shape=(1, 28, 28), out_dim=10, metric="accuracy", higher_is_better=True, chance=0.1)
    train_examples = 54_000

    def __init__(self, *, root: str, batch_size: int, sample: bool = False) -> None:
        self.root = Path(root)
        self.batch_size = batch_size
        self.sample = checked_sample(sample)

    def read(self) -> ImageSplits:
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        train, validation, test = enlarged_digits(28) if self.sample else self._official()
        return ImageSplits(
            train=train,
            validation=validation,
            test=test,
            mean=255 * 0.1307,
            std=255 * 0.3081,
            batch_size=self.batch_size,
        )

    def _official(self) -> tuple[Images, Images, Images]:
        FILES.ensure(self.root)
        return *hold_out_a_tenth(read_images(self.root, "train")), read_images(self.root, "t10k")


def read_images(root: Path, part: str) -> Images:
    """Read one part: images (N, 1, 28, 28), labels (N,)."""
    pixels = read_idx(root, f"{part}-images-idx3-ubyte", header=16)
    labels = read_idx(root, f"{part}-labels-idx1-ubyte", header=8)
    return Images(pixels.view(-1, 1, 28, 28), labels.long())


def read_idx(root: Path, name: str, *, header: int) -> torch.Tensor:
    """The bytes behind the header of an official file."""
    return torch.frombuffer(bytearray(FILES.read(root, name)[header:]), dtype=torch.uint8)
