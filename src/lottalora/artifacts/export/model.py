"""A loaded artifact with inputs to compare its exports on."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.artifacts.runs import register_models
from lottalora.scaffold import load
from lottalora.scaffold import read
from lottalora.scaffold.artifact.architectures import Architecture
from lottalora.scaffold.artifact.architectures import find_architecture

EXAMPLES = 2
TOKENS = 16  # of an example, or fewer where the model takes fewer


@dataclass(frozen=True)
class Model:
    """A loaded artifact.

    Args:
        net: on its scaffold, in evaluation mode; an export may change it.
        name: of its architecture.
        arguments: of its architecture.
        inputs: those that the artifact stores, or random ones; empty if neither is to be had.
        output: of `net` for the inputs, computed here; None without inputs.
    """

    net: nn.Module
    name: str
    arguments: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    output: Tensor | None

    @property
    def architecture(self) -> Architecture:
        """The registered architecture."""
        return find_architecture(self.name)

    def plain(self) -> nn.Module:
        """A new model of this architecture without a scaffold, in evaluation mode."""
        return self.architecture.build(**self.arguments).eval()


@torch.no_grad()
def load_model(path: Path) -> Model:
    """Load an artifact, and compute its output.

    Raises:
        ValueError: the artifact is damaged or names no architecture.
    """
    register_models()
    artifact = read(path)
    net = load(path)
    described = artifact.header.architecture
    assert described is not None, "load refuses it"
    name, arguments = described["name"], described["arguments"]
    inputs = artifact.inputs or examples(name, arguments)
    output = find_architecture(name).call(net, *(x.clone() for x in inputs)) if inputs else None
    return Model(net, name, arguments, tuple(inputs), output)


def examples(name: str, arguments: Mapping[str, Any]) -> Sequence[Tensor]:
    """Random inputs of a model that takes images or tokens; none for others."""
    shape, out_dim = arguments.get("in_shape", ()), arguments.get("out_dim", 0)
    random = torch.Generator().manual_seed(0)
    if name in ("mlp", "resnet", "vit"):
        return [torch.randn(EXAMPLES, *shape, generator=random)]
    if name in ("gpt", "distilbert"):
        entries = out_dim if name == "gpt" else shape[1]
        tokens = torch.randint(1, entries, (EXAMPLES, min(TOKENS, shape[0])), generator=random)
        return [tokens] if name == "gpt" else [tokens, torch.full((EXAMPLES,), tokens.shape[1])]
    return []
