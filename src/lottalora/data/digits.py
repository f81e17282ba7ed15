"""The handwritten digits that come with scikit-learn.  N images."""

from importlib.metadata import distribution

import numpy as np
import torch

from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.spec import DataSpec

FILE = "sklearn/datasets/data/digits.csv.gz"
SPLIT_SEED = 0  # of the split; never the run's seed


class Digits:
    """1,797 real handwritten digits, 8×8 pixels from 0 to 16, split 70 / 10 / 20 % within each class.

    Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998; scikit-learn's
    `load_digits`.

    Args:
        batch_size: images.
    """

    spec = DataSpec(in_shape=(1, 8, 8), out_dim=10, metric="accuracy", higher_is_better=True, chance=0.1)
    sample = False
    train_examples = 1258

    def __init__(self, *, batch_size: int) -> None:
        self.batch_size = batch_size

    def read(self) -> ImageSplits:
        images = read_digits()
        train, validation, test = stratified(images.labels.numpy())
        return ImageSplits(
            train=images.take(train),
            validation=images.take(validation),
            test=images.take(test),
            mean=4.884,  # of all 1,797 images, values 0 to 16
            std=6.017,
            batch_size=self.batch_size,
        )


def read_digits() -> Images:
    """All digits in scikit-learn's order: pixels (1797, 1, 8, 8) from 0 to 16.

    Read from scikit-learn's file, since importing scikit-learn takes as long as importing torch.
    """
    table = np.loadtxt(distribution("scikit-learn").locate_file(FILE), delimiter=",")  # (N, 64 + the label)
    pixels = torch.from_numpy(table[:, :-1].astype(np.uint8)).reshape(-1, 1, 8, 8)
    return Images(pixels, torch.from_numpy(table[:, -1].astype(np.int64)))


def enlarged_digits(width: int, *, channels: int = 1) -> tuple[Images, Images, Images]:
    """The three parts as a stand-in for larger images: bytes, each pixel repeated to size, equal channels."""
    digits = read_digits()
    source = torch.arange(width) * 8 // width  # which of 8 pixels stands at each place
    pixels = digits.pixels[:, :, source][:, :, :, source]  # (N, 1, width, width), values 0 to 16
    pixels = (pixels.int() * 255 // 16).to(torch.uint8).repeat(1, channels, 1, 1)
    images = Images(pixels, digits.labels)
    train, validation, test = stratified(digits.labels.numpy())
    return images.take(train), images.take(validation), images.take(test)


def stratified(labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of a 70 / 10 / 20 % split within each class, drawn from NumPy's frozen legacy stream."""
    random = np.random.RandomState(SPLIT_SEED)
    parts: tuple[list, list, list] = ([], [], [])
    for label in np.unique(labels):
        index = random.permutation(np.flatnonzero(labels == label))
        cuts = round(0.7 * len(index)), round(0.8 * len(index))
        for part, piece in zip(parts, np.split(index, cuts), strict=True):
            part.append(piece)
    train, validation, test = (torch.from_numpy(np.sort(np.concatenate(part))) for part in parts)
    return train, validation, test
