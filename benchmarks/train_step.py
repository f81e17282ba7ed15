"""Time a training step of each benchmark: full training, the reference, the fast path and PEFT's LoRA.

    python benchmarks/train_step.py --rounds 15 --only mlp cfc

The arms of a benchmark have the same batch and optimizer, and one thread. They take turns in one process, so
that whatever else the machine does falls on all of them, after two steps of each that are not counted; the
processor's seconds of each turn are compared, as ratios to full training. Before anything is timed, every
gradient of the fast path is compared with the reference's: if one is zero or differs, nothing is printed. The
limit beside the ratios is that of the counted operations of matrix products and convolutions: fast path ÷
full training. PEFT has no β, and its dropout is nn.Dropout; where it cannot adapt a model, or is bypassed,
its place is empty.
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lottalora.build import build
from lottalora.scaffold import fused_as
from lottalora.scaffold import paths_taken

CONF = Path(__file__).resolve().parents[1] / "conf"
MADE = ("data.sample=true",)
CASES = {  # name → what is typed; the batches are made ones in the recipe's shapes
    "mlp": ("model=mlp", "data=mnist", *MADE),
    "cfc": ("model=cfc", "data=physionet2012", *MADE),
    "decision_transformer": ("model=decision_transformer", "data=halfcheetah", *MADE),
    "decision_transformer, no adapter dropout": (
        *("model=decision_transformer", "data=halfcheetah", "adapter.dropout=0", *MADE),
    ),
    "gcn": ("model=gcn", "data=arxiv", *MADE),
    "gin": ("model=gin", "data=molhiv", *MADE),
    "plain-20": ("model=resnet", "data=cifar10", "model.shortcut=false", *MADE),
    "gpt 3M": ("model=gpt", "data=wikitext2", "data.batch_size=8", *MADE),
    "distilbert": ("model=distilbert", "data=imdb", "data.batch_size=8", *MADE),
}
NO_PEFT = ("cfc", "gcn")  # the cell reads .weight and so bypasses PEFT; PEFT refuses PyG's Linear
Arm = Callable[[], None]


class Line(NamedTuple):
    """One arm of one benchmark."""

    benchmark: str
    arm: str
    milliseconds: float
    ratio: float  # to full training: median, smallest, largest
    smallest: float
    largest: float
    limit: float | None
    paths: str


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="steps of each arm that are counted")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of benchmarks.md and .csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    lines = []
    for name in options.only:
        lines += measure(name, options.rank, options.rounds)
        write(lines, options.out)
    print((options.out / "benchmarks.md").read_text())


def measure(name: str, rank: int, rounds: int) -> list[Line]:
    words = (*CASES[name], f"rank={rank}")
    full, batch = make_task((*words, "mode=baseline"))
    ours, _ = make_task((*words, "mode=scaffold"))
    compare_gradients(name, ours, batch)
    arms = {"full": step_of(full, batch)}
    arms["reference"] = step_of(ours, batch, "off")
    arms["fused"] = step_of(ours, batch, "auto")
    if name not in NO_PEFT and (peft := on_peft(words, ours)) is not None:
        arms["PEFT"] = step_of(peft, batch)
    operations = {arm: count(arms[arm]) for arm in ("full", "fused")}
    paths = ", ".join(f"{number} {form}" for form, number in sorted(paths_taken(ours.net).items()))
    seconds = {arm: [] for arm in arms}
    for turn in range(rounds + 1):  # the count above was a step, too
        for arm, step in arms.items():
            began = time.process_time()
            step()
            if turn:
                seconds[arm].append(time.process_time() - began)
    limit = operations["fused"] / operations["full"]
    return [line(name, arm, seconds, limit if arm == "fused" else None, paths) for arm in arms]


def line(name: str, arm: str, seconds: dict[str, list[float]], limit: float | None, paths: str) -> Line:
    ratios = [mine / base for mine, base in zip(seconds[arm], seconds["full"], strict=True)]
    spread = statistics.median(ratios), min(ratios), max(ratios)
    return Line(name, arm, 1000 * statistics.median(seconds[arm]), *spread, limit, paths * (arm == "fused"))


def make_task(words: tuple[str, ...]) -> tuple[nn.Module, object]:
    """The task that `run.py WORDS` trains, and its first batch."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=list(words), return_hydra_config=False)
    torch.manual_seed(cfg.seed)
    data = instantiate(cfg.data)
    splits = data.read()
    net, account = build(cfg, data.spec)
    task = instantiate(cfg.task, net, data.spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    task.account, task.adapter_dropout = account, cfg.adapter.dropout
    return task, next(iter(splits.train_batches(cfg.seed)))


def on_peft(words: tuple[str, ...], ours: nn.Module) -> nn.Module | None:
    """The dense task with PEFT's LoRA where ours has adapters; None if PEFT is missing or cannot."""
    try:
        from peft import LoraConfig
        from peft import inject_adapter_in_model
    except ImportError:
        return None
    task, _ = make_task((*words, "mode=baseline"))
    trained = {name for name, p in ours.net.named_parameters() if p.requires_grad}
    entries = ours.account.entries
    targets = [entry.name.removesuffix(".weight") for entry in entries if entry.place == "adapt"]
    rank = next(entry.rank for entry in entries if entry.place == "adapt")
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, lora_dropout=ours.adapter_dropout)
    try:
        task.net = inject_adapter_in_model(config, task.net)
    except ValueError:
        return None
    for name, parameter in task.net.named_parameters():
        kept = name.replace(".base_layer", "")
        parameter.requires_grad_("lora_" in name or kept in trained)
    return task


def step_of(task: nn.Module, batch: object, mode: str = "auto") -> Arm:
    """One training step of a task as a function."""
    task.train()
    optimizer = torch.optim.AdamW([p for p in task.net.parameters() if p.requires_grad], fused=True)

    def step() -> None:
        with fused_as(mode):
            optimizer.zero_grad()
            task.step(batch).loss.backward()
            optimizer.step()

    return step


def compare_gradients(name: str, task: nn.Module, batch: object) -> None:
    """Refuse to measure a fast path whose gradients are not the reference's; without dropout.

    B starts at 0, which makes the gradient of A zero: it is moved away first.
    """
    task.eval()
    with torch.no_grad():
        for parameter_name, parameter in task.net.named_parameters():
            if parameter_name.endswith(".B"):
                parameter.normal_(std=0.02)
    found = []
    for mode in ("off", "auto"):
        with fused_as(mode):
            task.net.zero_grad()
            task.step(batch).loss.backward()
        found.append({n: p.grad.clone() for n, p in task.net.named_parameters() if p.grad is not None})
    reference, ours = found
    largest = max(gradient.norm() for gradient in reference.values())
    for parameter_name, true in reference.items():
        error = (ours[parameter_name] - true).norm()
        if true.norm() == 0 or error > 1e-3 * true.norm() + 1e-6 * largest:
            raise SystemExit(
                f"{name}: the gradient of {parameter_name} is zero or differs by {error / true.norm():.1e} "
                "of its norm between the reference and the fast path. Nothing was timed."
            )


def count(step: Arm) -> int:
    """The floating-point operations of matrix products and convolutions in one step."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: of_addmm}) as counter:
        step()
    return counter.get_total_flops()


def of_addmm(_: torch.Size, left: torch.Size, right: torch.Size, **__: object) -> int:
    """For addmm in place, which PyTorch's counter leaves out."""
    return 2 * left[0] * left[1] * right[1]


def write(lines: list[Line], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "benchmarks.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Line._fields)
        writer.writerows(lines)
    head = ("training step of", "arm", "ms", "÷ full [min–max]", "counted limit", "layers by path")
    text = ["# Training steps\n", "| " + " | ".join(head) + " |", "|---|---|---|---|---|---|"]
    for each in lines:
        ratio = f"{each.ratio:.2f} [{each.smallest:.2f}–{each.largest:.2f}]"
        limit = "" if each.limit is None else f"{each.limit:.2f}"
        cells = (each.benchmark, each.arm, f"{each.milliseconds:.1f}", ratio, limit, each.paths)
        text.append("| " + " | ".join(cells) + " |")
    (folder / "benchmarks.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
