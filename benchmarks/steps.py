"""A training step of each benchmark: full training, the scaffold, the reference and PEFT's LoRA.

PEFT has no β, and its dropout is nn.Dropout. Where it cannot adapt a model, or is bypassed, it is left out.
"""

from pathlib import Path

import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import lottalora.config.check  # noqa: F401  # the functions that config files use
from benchmarks.timing import FULL
from benchmarks.timing import Arm
from benchmarks.timing import Line
from benchmarks.timing import Timing
from benchmarks.timing import compare_gradients
from benchmarks.timing import lines_of
from benchmarks.timing import operations
from lottalora.build import build
from lottalora.scaffold import fused_as
from lottalora.scaffold import paths_taken

CONF = Path(__file__).resolve().parents[1] / "conf"
MADE = ("data.sample=true",)
CASES = {  # name → what is typed; the batches are made ones in the recipe's shapes
    "mlp": ("model=mlp", "data=mnist", *MADE),
    "cfc": ("model=cfc", "data=physionet2012", *MADE),
    "plain-20": ("model=resnet", "data=cifar10", "model.shortcut=false", *MADE),
    "vit": ("model=vit_random", "data=flowers102", "model.size=small", "data.batch_size=8", *MADE),
    "decision_transformer": ("model=decision_transformer", "data=halfcheetah", *MADE),
    "decision_transformer, no adapter dropout": (
        *("model=decision_transformer", "data=halfcheetah", "adapter.dropout=0", *MADE),
    ),
    "gin": ("model=gin", "data=molhiv", *MADE),
    "gcn": ("model=gcn", "data=arxiv", *MADE),
    "distilbert": ("model=distilbert", "data=imdb", "data.batch_size=8", *MADE),
    "gpt 3M": ("model=gpt", "data=wikitext2", "data.batch_size=8", *MADE),
    "gpt 30M": ("model=gpt", "data=wikitext2", "model.size=30M", "data.batch_size=8", *MADE),
}
TABLE_9 = {  # the paper's costs, on a GPU: batches of 32 × 128 tokens in bf16
    f"Table 9, {size}": ("model=gpt", "data=wikitext2", f"model.size={size}", "data.batch_size=32", *MADE)
    for size in ("3M", "30M", "300M", "600M", "900M")
}
NO_PEFT = ("cfc", "gcn")  # the cell reads .weight and so bypasses PEFT; PEFT refuses PyG's Linear


def measure(name: str, rank: int, timing: Timing) -> list[Line]:
    words = (*(CASES | TABLE_9)[name], f"rank={rank}")
    megabytes: dict[str, float | None] = {}
    arms: dict[str, Arm] = {}

    def add(arm: str, task: nn.Module, mode: str = "auto") -> None:
        arms[arm] = step_of(task, batch, mode)
        megabytes[arm] = timing.megabytes(arms[arm], before)

    before = timing.allocated()
    full, batch = make_task((*words, "mode=baseline"), timing.device)
    add(FULL, full)
    before = timing.allocated()
    ours, _ = make_task((*words, "mode=scaffold"), timing.device)
    add("scaffold", ours)
    check(name, ours, batch)
    add("reference", ours, "off")
    megabytes["reference"] = None  # it shares the scaffold's weights
    before = timing.allocated()
    if name not in NO_PEFT and (peft := on_peft(words, ours, timing.device)) is not None:
        add("PEFT", peft)
    limit = operations(arms["scaffold"]) / operations(arms[FULL])
    forms = ", ".join(f"{number} {form}" for form, number in sorted(paths_taken(ours.net).items()))
    tokens = batch[0].numel() if name in TABLE_9 else 0
    seconds = timing.take_turns(arms)
    made = {"limit": limit, "forms": forms, "tokens": tokens, "megabytes": megabytes}
    return lines_of("training step", name, seconds, **made)


def make_task(words: tuple[str, ...], device: str) -> tuple[nn.Module, object]:
    """The task that `run.py WORDS` trains, and its first batch."""
    from pytorch_lightning.utilities import move_data_to_device

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=list(words), return_hydra_config=False)
    torch.manual_seed(cfg.seed)
    data = instantiate(cfg.data)
    splits = data.read()
    net, account = build(cfg, data.spec)
    task = instantiate(cfg.task, net, data.spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    task.account, task.adapter_dropout = account, cfg.adapter.dropout
    return task.to(device), move_data_to_device(next(iter(splits.train_batches(cfg.seed))), device)


def on_peft(words: tuple[str, ...], ours: nn.Module, device: str) -> nn.Module | None:
    """The dense task with PEFT's LoRA where ours has adapters; None if PEFT is missing or cannot."""
    try:
        from peft import LoraConfig
        from peft import inject_adapter_in_model
    except ImportError:
        return None
    task, _ = make_task((*words, "mode=baseline"), device)
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
    return task.to(device)


def step_of(task: nn.Module, batch: object, mode: str = "auto", *, capturable: bool = False) -> Arm:
    """One training step of a task as a function; capturable if a CUDA graph is to hold it."""
    task.train()
    trained = [p for p in task.net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True, capturable=capturable)
    device = next(task.parameters()).device.type

    def autocast() -> torch.autocast:
        cuda = device == "cuda"
        return torch.autocast(device, torch.bfloat16, enabled=cuda, cache_enabled=not capturable)

    def step() -> None:
        with fused_as(mode), autocast():
            optimizer.zero_grad()
            task.step(batch).loss.backward()
            optimizer.step()

    return step


def check(name: str, task: nn.Module, batch: object) -> None:
    """Compare the gradients of the forms that are taken with the reference's, without dropout.

    B starts at 0, which makes the gradient of A zero: it is moved away first.
    """
    task.eval()
    with torch.no_grad():
        for parameter_name, parameter in task.net.named_parameters():
            if parameter_name.endswith(".B"):
                parameter.normal_(std=0.02)
    found = []
    for mode in ("off", "auto"):
        with fused_as(mode), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            task.net.zero_grad()
            task.step(batch).loss.backward()
        found.append({n: p.grad.clone() for n, p in task.net.named_parameters() if p.grad is not None})
    compare_gradients(name, *found)
