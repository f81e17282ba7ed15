"""One linear layer, forward and backward: dense, on a scaffold, by PEFT and by loralib."""

import torch
from torch import nn

from benchmarks.timing import FULL
from benchmarks.timing import Arm
from benchmarks.timing import Line
from benchmarks.timing import Timing
from benchmarks.timing import compare_gradients
from benchmarks.timing import lines_of
from benchmarks.timing import operations
from lottalora.scaffold import Scaffold
from lottalora.scaffold import fused_as
from lottalora.scaffold import wrap

CASES = {  # name → inputs, outputs, rows, dtype
    "1024 to 2816, 1,024 rows": (1024, 2816, 1024, torch.float32),
    "1024 to 2816, 1,024 rows, bf16": (1024, 2816, 1024, torch.bfloat16),
    "768 to 3072, 1,576 rows": (768, 3072, 1576, torch.float32),
    "128 to 512, 3,840 rows": (128, 512, 3840, torch.float32),
    "512 to 256, 128 rows": (512, 256, 128, torch.float32),
}


def measure(name: str, rank: int, timing: Timing) -> list[Line]:
    columns, out, rows, dtype = CASES[name]
    if dtype is torch.bfloat16 and timing.device == "cpu" and not has_bf16():
        print(f"{name}: not measured, since this processor has no bf16 instructions.", flush=True)
        return []
    torch.manual_seed(0)
    where = {"dtype": dtype, "device": timing.device}
    x = torch.randn(rows, columns, **where, requires_grad=True)
    dh = torch.randn(rows, out, **where)
    nets = {FULL: nn.Sequential(nn.Linear(columns, out)), "scaffold": nn.Sequential(nn.Linear(columns, out))}
    wrap(nets["scaffold"], Scaffold(rank=rank, bias="frozen"))
    nets |= others(columns, out, rank)
    nets = {arm: net.to(timing.device, dtype) for arm, net in nets.items()}
    arms = {arm: step_of(net, x, dh) for arm, net in nets.items()}
    ours = nets["scaffold"]
    nn.init.normal_(ours[0].B, std=0.02)  # a B of 0 makes the gradient of A zero
    if dtype is torch.float32:  # in bf16 both round
        compare_gradients(name, gradients(ours, x, dh, "off"), gradients(ours, x, dh, "auto"))
    arms["reference"] = step_of(ours, x, dh, "off")
    limit = operations(arms["scaffold"]) / operations(arms[FULL])
    before = timing.allocated()  # all weights: what a step takes beyond them is counted
    megabytes = {arm: timing.megabytes(step, before) for arm, step in arms.items()}
    seconds = timing.take_turns(arms)
    arms["scaffold"]()
    return lines_of("layer", name, seconds, limit=limit, forms=str(ours[0].taken), megabytes=megabytes)


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices itself, by AVX-512 or AMX."""
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


def others(columns: int, out: int, rank: int) -> dict[str, nn.Module]:
    """The same layer by PEFT and by loralib, where they are installed; they have no β."""
    found: dict[str, nn.Module] = {}
    try:
        import peft

        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
        found["PEFT"] = peft.inject_adapter_in_model(config, nn.Sequential(nn.Linear(columns, out)))
    except ImportError:
        pass
    try:
        import loralib

        found["loralib"] = nn.Sequential(loralib.Linear(columns, out, r=rank, lora_alpha=rank))
        loralib.mark_only_lora_as_trainable(found["loralib"])
    except ImportError:
        pass
    return found


def step_of(net: nn.Module, x: torch.Tensor, dh: torch.Tensor, mode: str = "auto") -> Arm:
    """Forward and backward of a layer as a function."""
    parameters = [x, *net.parameters()]

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        with fused_as(mode):
            net(x).backward(dh)

    return step


def gradients(net: nn.Module, x: torch.Tensor, dh: torch.Tensor, mode: str) -> dict[str, torch.Tensor]:
    step_of(net, x, dh, mode)()
    return {"x": x.grad} | {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
