"""The runs of a block whose weights were kept, and what their nets do with the test part."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch import nn

from lottalora.artifacts.weights import Kept
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.results.rows import Row
from lottalora.scaffold.layers.kinds import kind_of
from lottalora.scaffold.layers.layer import LottaLayer

COMMAND = "python run.py -m sweeps=weights paths.results=kept"
EXAMPLES = 1000  # of the test part, for activations


def kept_lines(blocks: Iterable[Block], kept: Kept) -> list[tuple[Block, list[tuple[Line, Row]]]]:
    """The blocks that have kept weights, with their runs.

    Raises:
        ValueError: no run has any; names the command that makes some.
    """
    found = []
    for block in blocks:
        lines = [line for line in block.lines if block.own and line.own_rows]
        runs = [(line, row) for line in lines for row in line.runs if kept.has(row)]
        if runs:
            found.append((block, runs))
    if not found:
        raise ValueError(
            f"No finished run below {kept.results} has kept its weights. Make some: {COMMAND}, then add "
            "--results kept to this command."
        )
    return found


def first_examples(kept: Kept, row: Row) -> object:
    """The first test examples of a row's data, at most `EXAMPLES`, as the net takes them."""
    _, splits = kept.data(row)
    inputs, count = [], 0
    for inputs_of_batch, label in splits.test_batches():
        if not isinstance(inputs_of_batch, Tensor):
            return inputs_of_batch  # sequences and graphs cannot be joined: one batch of them
        inputs.append(inputs_of_batch)
        count += len(label)
        if count >= EXAMPLES:
            break
    return torch.cat(inputs)[:EXAMPLES]


@torch.no_grad()
def seen_by_layers(
    net: nn.Module, example: object, note: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> None:
    """Run the net and call `note(name, layer, input, output)` for each layer with a weight that is called."""
    hooks = [
        module.register_forward_hook(
            lambda layer, given, output, name=name: note(name, layer, given[0], output)
        )
        for name, module in net.named_modules()
        if isinstance(module, LottaLayer) or kind_of(module) in ("linear", "transposed", "convolution")
    ]
    try:
        net(example)
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def score_again(net: nn.Module, kept: Kept, row: Row) -> float:
    """The test score of a net as it is, by the task that the row was scored by."""
    from lottalora.tasks.imports import before_lightning

    before_lightning()
    spec, splits = kept.data(row)
    task = instantiate(row["config"]["task"], net, spec, None, None)  # nothing is trained: no optimizer
    task.eval()
    for batch in splits.test_batches():
        step = task.step(batch)
        task.test_score.update(step.prediction, step.target)
    return float(task.test_score.compute())


@contextmanager
def beta_zero(net: nn.Module) -> Iterator[None]:
    """Within this context every β is 0."""
    layers = [module for module in net.modules() if isinstance(module, LottaLayer)]
    betas = [layer.beta for layer in layers if layer.beta is not None]
    before = [beta.detach().clone() for beta in betas]
    with torch.no_grad():
        for beta in betas:
            beta.zero_()
        yield
        for beta, value in zip(betas, before, strict=True):
            beta.copy_(value)
