"""MNIST: found, downloaded or refused in one clear line; read into memory as bytes.  N images."""

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from lottalora.data.digits import read_digits
from lottalora.data.digits import stratified
from lottalora.data.images import Images
from lottalora.data.images import ImageSplits
from lottalora.data.spec import DataSpec

SPLIT_SEED = 0  # of the 90/10 split; never the run's seed
NETWORK_PATIENCE = 20  # seconds without an answer
# MD5 of the four official files: unpacked, and packed as torchvision/datasets/mnist.py checks them.
OFFICIAL = {
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432"),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3"),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c"),
}


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
        if not isinstance(sample, bool):
            raise ValueError(f"data.sample must be true or false, got {sample!r}.")
        self.root = Path(root)
        self.batch_size = batch_size
        self.sample = sample

    def read(self) -> ImageSplits:
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        train, validation, test = enlarged_digits() if self.sample else self._official()
        return ImageSplits(
            train=train,
            validation=validation,
            test=test,
            mean=255 * 0.1307,
            std=255 * 0.3081,
            batch_size=self.batch_size,
        )

    def _official(self) -> tuple[Images, Images, Images]:
        folder = self.root / "MNIST" / "raw"
        if missing(folder):
            download(self.root)
        images = read_images(folder, "train")
        index = torch.from_numpy(np.random.RandomState(SPLIT_SEED).permutation(len(images.labels)))
        held_out = len(index) // 10
        train, validation = index[held_out:].sort().values, index[:held_out].sort().values
        return images.take(train), images.take(validation), read_images(folder, "t10k")


def missing(folder: Path) -> list[str]:
    return [
        name for name in OFFICIAL if not (folder / name).exists() and not (folder / f"{name}.gz").exists()
    ]


def download(root: Path) -> None:
    """Fetch MNIST through torchvision into a scratch folder, and put it in place when it is whole."""
    folder = root / "MNIST" / "raw"
    lacking = missing(folder)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            fetch(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            for name in lacking:
                part = folder / f".{name}.{os.getpid()}"
                shutil.copyfile(Path(scratch) / "MNIST" / "raw" / f"{name}.gz", part)
                os.replace(part, folder / f"{name}.gz")
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise FileNotFoundError(
            f"MNIST is not at {folder} (looked for {', '.join(lacking)}, also .gz) and could not be "
            f"downloaded ({reason}). Put the files there, "
            "or name the folder above mnist/ with paths.data=FOLDER or LOTTALORA_DATA; "
            "data=digits and data.sample=true need no network."
        ) from error


def fetch(folder: str) -> None:
    from torchvision.datasets import MNIST as Torchvision

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_PATIENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            Torchvision(folder, download=True)
    finally:
        socket.setdefaulttimeout(patience)


def read_images(folder: Path, part: str) -> Images:
    pixels = read_idx(folder, f"{part}-images-idx3-ubyte", header=16)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", header=8)
    return Images(pixels.view(-1, 1, 28, 28), labels.long())


def read_idx(folder: Path, name: str, *, header: int) -> torch.Tensor:
    """The bytes behind the header of an official file, which its MD5 vouches for."""
    raw_sum, packed_sum = OFFICIAL[name]
    path, expected = folder / name, raw_sum
    if not path.exists():
        path, expected = folder / f"{name}.gz", packed_sum
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != expected:
        raise ValueError(
            f"{path} is damaged: its {len(content):,} bytes are not the official file (MD5 {expected}). "
            "Delete it and run again to download it anew."
        )
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8)


def enlarged_digits() -> tuple[Images, Images, Images]:
    """The built-in stand-in: scikit-learn's digits as 28×28 bytes, each pixel repeated to size."""
    digits = read_digits()
    source = torch.arange(28) * 8 // 28  # which of 8 pixels stands at each of 28
    pixels = digits.pixels[:, :, source][:, :, :, source]  # (N, 1, 28, 28), values 0 to 16
    images = Images((pixels.int() * 255 // 16).to(torch.uint8), digits.labels)
    train, validation, test = stratified(digits.labels.numpy())
    return images.take(train), images.take(validation), images.take(test)
