"""On a GPU: the Triton kernels beside what PyTorch offers, and training steps as CUDA graphs.

A sign layer is compared with the dense product of the same matrix, drawing with `draw` on the CPU and a copy.
What is drawn and computed is compared first; if it differs, nothing is printed.
"""

import torch

from benchmarks.timing import FULL
from benchmarks.timing import Arm
from benchmarks.timing import Line
from benchmarks.timing import Timing
from benchmarks.timing import compare_gradients
from benchmarks.timing import lines_of
from lottalora.scaffold import Source
from lottalora.scaffold import draw

SIGNS = {  # name → inputs, outputs, rows
    "1024 to 2816, 4,096 rows": (1024, 2816, 4096),
    "1664 to 4608, 4,096 rows": (1664, 4608, 4096),
    "4096 to 4096, 1 row": (4096, 4096, 1),
}
DRAWN = 4096  # the side of the matrix that is drawn
GRAPHS = ("mlp", "cfc", "gin", "gpt 3M")  # launch-bound


def measure(timing: Timing) -> list[Line]:
    """The lines of both kernels; the dense product and the CPU stand for full training."""
    from lottalora.scaffold import kernels  # needs Triton

    lines = []
    for name, (columns, out, rows) in SIGNS.items():
        arms = sign_arms(kernels, name, columns, out, rows)
        lines += lines_of(
            "signs, bf16", name, timing.take_turns(arms), limit=None, forms="", megabytes=none(arms)
        )
    source = Source(42, "bench", (DRAWN, DRAWN))
    if not torch.equal(kernels.draw_on(source, "cuda").cpu(), draw(source)):
        raise SystemExit("draw_on gives other bits than draw. Nothing was timed.")
    arms = {
        FULL: lambda: draw(source).to("cuda"),
        "draw_on": lambda: kernels.draw_on(source, "cuda"),
        "torch.randn": lambda: torch.randn(DRAWN, DRAWN, device="cuda"),
    }
    name = f"{DRAWN} × {DRAWN} normal"
    return lines + lines_of(
        "drawing", name, timing.take_turns(arms), limit=None, forms="", megabytes=none(arms)
    )


def sign_arms(kernels, name: str, columns: int, out: int, rows: int) -> dict[str, Arm]:
    """Forward and backward of a frozen layer, dense and at one bit, with gradients compared."""
    W = draw(Source(42, "bench", (out, columns), "binary")).cuda()
    words, magnitude = kernels.pack(W)
    W = W.bfloat16()
    x = torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dh = torch.randn(rows, out, device="cuda", dtype=torch.bfloat16)

    def dense() -> None:
        x.grad = None
        torch.nn.functional.linear(x, W).backward(dh)

    def packed() -> None:
        x.grad = None
        kernels.sign_linear(x, words, magnitude).backward(dh)

    found = []
    for step in (dense, packed):
        step()
        found.append({"x": x.grad.float()})
    compare_gradients(name, *found, tolerance=1e-2)  # both round to bf16
    return {FULL: dense, "sign_linear": packed}


def measure_graph(name: str, rank: int, timing: Timing) -> list[Line]:
    """Steps of full training and of the scaffold, launched one by one and as one CUDA graph each."""
    from benchmarks import steps

    words, arms = (*steps.CASES[name], f"rank={rank}"), {}
    for arm, mode in ((FULL, "baseline"), ("scaffold", "scaffold")):
        task, batch = steps.make_task((*words, f"mode={mode}"), timing.device)
        arms[arm] = steps.step_of(task, batch, capturable=True)
        try:
            arms[f"{arm}, CUDA graph"] = captured(arms[arm])
        except RuntimeError as error:
            print(f"{name}, {arm}: no CUDA graph: {str(error).splitlines()[0]}", flush=True)
            return []
    seconds = timing.take_turns(arms)
    return lines_of("CUDA graph", name, seconds, limit=None, forms="", megabytes=none(arms))


def captured(step: Arm) -> Arm:
    """The step as a CUDA graph, after the steps on a side stream that PyTorch asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def none(arms: dict[str, Arm]) -> dict[str, None]:
    return dict.fromkeys(arms)
