"""The suite's training path against a bare PyTorch loop: medium MLP, MNIST, full training.

Both arms see the same batches from memory, the same optimizer and schedule, and score the validation part
after each epoch; the suite's arm adds Lightning, torchmetrics and a checkpoint at each best epoch. The arms
take turns, after an epoch of each that is not counted. Aim: a ratio of at most 1.10.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch.nn import functional as F

from lottalora.build import build
from lottalora.tracking.progress import Progress
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit

CONF = Path(__file__).resolve().parents[1] / "conf"


def report(epochs: int, *, repeats: int = 2, sample: bool = False) -> None:
    """Print the times of both arms.

    Args:
        epochs: of a training.
        repeats: of both arms; the medians are compared.
        sample: whether to take the small built-in stand-in for MNIST.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = f"data.sample={str(sample).lower()}"
        cfg = compose("config", overrides=["data=mnist", "mode=baseline", made])
    data = instantiate(cfg.data)
    splits = data.read()
    arms = {"bare loop": bare_loop, "suite": suite}
    for train in arms.values():
        timed(train, cfg, data.spec, splits, epochs=1)
    seconds = {name: [] for name in arms}
    for turn in range(repeats):
        for name, train in arms.items():
            wall, cpu, score = timed(train, cfg, data.spec, splits, epochs=epochs)
            seconds[name].append((wall, cpu))
            times = f"{wall:7.1f} s clock {cpu:7.1f} s processor"
            print(f"turn {turn + 1}  {name:<10}{times}, best validation {score:.4f}", flush=True)
    for i, clock in enumerate(("clock", "processor")):
        bare, ours = (statistics.median(pair[i] for pair in seconds[name]) for name in arms)
        print(f"suite ÷ bare loop = {ours / bare:.2f} by the {clock} ({epochs} epochs; aim ≤ 1.10)")


def timed(train, cfg, spec, splits, *, epochs: int) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and the score, of one training from the same start."""
    torch.manual_seed(cfg.seed)
    cfg.trainer.epochs = epochs
    net, _ = build(cfg, spec)
    wall, cpu = time.perf_counter(), time.process_time()
    score = train(cfg, net, spec, splits)
    return time.perf_counter() - wall, time.process_time() - cpu, score


def suite(cfg, net, spec, splits) -> float:
    """The best validation score by the path that run.py takes."""
    task = instantiate(cfg.task, net, spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    with tempfile.TemporaryDirectory() as folder:
        trained = fit(
            task,
            splits,
            TrainerSettings(epochs=cfg.trainer.epochs, accelerator="cpu"),
            seed=cfg.seed,
            higher_is_better=True,
            folder=Path(folder),
            callbacks=[Progress()],
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
