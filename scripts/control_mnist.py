"""A control beside Table 2: how well MNIST's digits can be told from r linear projections of the image.

    python scripts/control_mnist.py DATA/mnist --rank 1 2 4 8 --seed 42 43 44

Where W_seed = 0, or is taken away, the first layer of rank r is B A x + b, so that the whole network is a
function of A x: of r numbers that are linear in the image. Here these r numbers are trained together with a
dense network behind them, all of it trained and batch normalised. What it reaches is no proof of what can be
reached, but the layers of rank r that follow in the paper's network are a part of what it can be.

Printed is the accuracy on the test images after the epoch that is best on the validation part, and the
greatest after any epoch, which no choice of an epoch can exceed. With --sample it is handwritten digits of
8 × 8 pixels, which say nothing about MNIST and are marked.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.mnist import MNIST

WIDTHS = (512, 256, 128, 64)  # as the paper's medium
BATCH = 128  # images
LEARNING_RATE = 2e-3  # AdamW, cosine to 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, nargs="?", help="folder of MNIST/raw/")
    parser.add_argument("--sample", action="store_true", help="built-in digits in place of a folder")
    parser.add_argument("--rank", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seed", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    if (options.root is None) != options.sample:
        parser.error("name the folder of MNIST/raw/, such as DATA/mnist; or type --sample")
    marked = " on built-in digits, not MNIST" if options.sample else ""
    splits = MNIST(root=str(options.root), batch_size=BATCH, sample=options.sample).read()
    for rank in options.rank:
        for seed in options.seed:
            chosen, greatest = control(splits, rank, seed, options.epochs)
            print(
                f"{rank} projections, seed {seed}: test accuracy {100 * chosen:.2f} %, "
                f"greatest of any epoch {100 * greatest:.2f} %{marked}",
                flush=True,
            )


def control(splits: ImageSplits, rank: int, seed: int, epochs: int) -> tuple[float, float]:
    """Test accuracy after the epoch that validation chooses, and the greatest of all epochs."""
    torch.manual_seed(seed)
    x, labels = pixels(splits.train, splits), splits.train.labels  # (N, 784), (N,)
    net = network(x.shape[1], rank)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    scores = []  # of each epoch: on the validation part, on the test part
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), labels[batch]).backward()
            optimizer.step()
        schedule.step()
        scores.append(tuple(accuracy(net, part, splits) for part in (splits.validation, splits.test)))
    return max(scores)[1], max(test for _, test in scores)


def network(inputs: int, rank: int) -> nn.Sequential:
    """r linear projections, and a dense network behind them."""
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), *dense_layers(rank))


def dense_layers(width: int) -> Iterator[nn.Module]:
    yield nn.BatchNorm1d(width)
    for wider in WIDTHS:
        yield from (nn.Linear(width, wider), nn.BatchNorm1d(wider), nn.ReLU())
        width = wider
    yield nn.Linear(width, 10)


def pixels(part: Images, splits: ImageSplits) -> Tensor:
    """The normalised images as rows, (N, 784)."""
    return (part.pixels.flatten(1).float() - splits.mean) / splits.std


@torch.no_grad()
def accuracy(net: nn.Module, part: Images, splits: ImageSplits) -> float:
    net.eval()
    right = net(pixels(part, splits)).argmax(1) == part.labels
    net.train()
    return right.float().mean().item()


if __name__ == "__main__":
    main()
