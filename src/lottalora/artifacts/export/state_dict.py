"""The merged weights of any model as one safetensors file, by the names of the plain model."""

from pathlib import Path

from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor
from torch import nn

from lottalora.artifacts.export.model import Model
from lottalora.scaffold import merge


def write(model: Model, out: Path) -> None:
    """Merge, and write `state_dict()`; tied weights stand in it under each of their names."""
    merge(model.net)
    write_state(model.net, out)


def write_state(net: nn.Module, out: Path) -> None:
    """Write the `state_dict()` of a plain net."""
    save_file({name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}, out)


def output(model: Model, out: Path) -> Tensor:
    """The output of a plain model with the weights that were written."""
    plain = model.plain()
    plain.load_state_dict(load_file(out))
    return model.architecture.call(plain, *model.inputs)
