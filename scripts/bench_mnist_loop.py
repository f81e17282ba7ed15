"""Time the suite's training path against a bare PyTorch loop: medium MLP, MNIST, baseline.

    python scripts/bench_mnist_loop.py --epochs 20 --repeats 2

Both arms see the same batches from memory, the same optimizer and schedule, and score the validation part after each
epoch; the suite's arm adds Lightning, torchmetrics and a checkpoint at each best epoch. The arms take turns, so that
whatever else the machine does falls on both. Aim: a ratio of at most 1.3.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch.nn import functional as F

from lottalora.experiment import build
from lottalora.training import fit

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2, help="of both arms; the medians are compared")
    parser.add_argument("--sample", action="store_true", help="take the small built-in stand-in for MNIST")
    options = parser.parse_args()

    with initialize_config_dir(str(CONF), version_base="1.3"):
        sample = f"data.sample={str(options.sample).lower()}"
        overrides = ["data=mnist", "mode=baseline", f"trainer.epochs={options.epochs}", sample]
        cfg = compose("config", overrides=overrides)
    torch.set_num_threads(cfg.trainer.threads)
    data = instantiate(cfg.data)
    splits = data.read()

    arms = {"bare loop": bare_loop, "suite": suite}
    seconds = {name: [] for name in arms}
    for turn in range(options.repeats):
        for name, train in arms.items():
            torch.manual_seed(cfg.seed)
            net, _ = build(cfg, data.spec)
            begin = time.perf_counter()
            score = train(cfg, net, data.spec, splits)
            seconds[name].append(time.perf_counter() - begin)
            took = f"{seconds[name][-1]:.1f} s"
            print(
                f"turn {turn + 1} of {options.repeats}  {name:<10}{took:>10}, best validation {score:.4f}",
                flush=True,
            )
    median = {name: statistics.median(times) for name, times in seconds.items()}
    print(
        f"suite ÷ bare loop = {median['suite'] / median['bare loop']:.2f}  ({options.epochs} epochs; aim ≤ 1.3)"
    )


def suite(cfg, net, spec, splits) -> float:
    """The best validation score by the path that run.py takes."""
    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            task,
            splits,
            seed=cfg.seed,
            epochs=cfg.trainer.epochs,
            accelerator="cpu",
            higher_is_better=True,
            folder=Path(folder),
        )
    return trained.validation_score


def bare_loop(cfg, net, spec, splits) -> float:
    """The best validation score by the shortest loop that trains the same."""
    optimizer = instantiate(cfg.optimizer)(net.parameters())
    schedule = instantiate(cfg.schedule)(optimizer)
    batches, best = splits.train_batches(cfg.seed), 0.0
    for epoch in range(cfg.trainer.epochs):
        batches.sampler.set_epoch(epoch)
        net.train()
        for x, label in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x), label).backward()
            optimizer.step()
        schedule.step()
        best = max(best, accuracy(net, splits.validation_batches()))
    return best


@torch.inference_mode()
def accuracy(net, batches) -> float:
    net.eval()
    hits = sum((net(x).argmax(1) == label).sum().item() for x, label in batches)
    return hits / len(batches.images.labels)


if __name__ == "__main__":
    main()
