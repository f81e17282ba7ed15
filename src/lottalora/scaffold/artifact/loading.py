"""Loading an artifact: rebuild its model on the meta device, compare; only then allocate."""

import copy
import math
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.artifact.architectures import build
from lottalora.scaffold.artifact.architectures import find_architecture
from lottalora.scaffold.artifact.architectures import plain_call
from lottalora.scaffold.artifact.arguments import refuse_large_numbers
from lottalora.scaffold.artifact.comparing import compare
from lottalora.scaffold.artifact.comparing import put_on_scaffold
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.defaults import float32_on_the_cpu
from lottalora.scaffold.artifact.defaults import without_autocast
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.reading import Artifact
from lottalora.scaffold.artifact.reading import read
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.state import buffers_left_out
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.identity import Fingerprint
from lottalora.scaffold.layers.identity import agree
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.whole_model.materialize import materialize
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.places import in_one_line

LIMIT = 2**31  # numbers of all parameters together
TOLERANCE = 1e-5  # of the largest output, between machines


def load(path: Path | str, *, limit: int = LIMIT) -> nn.Module:
    """Build the model of an artifact, in evaluation mode, on the CPU, whatever the default device and dtype.

    No code of the file runs and nothing is imported by a name from it: the architecture must be registered.

    Args:
        path: what `save` wrote.
        limit: the most numbers that the parameters of the plain model may have together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another version; its architecture is not registered, larger than
            `limit`, or not that of the stored tensors; or a W_seed is not the one that was saved.
        ModuleNotFoundError: a package that the architecture is built from is not installed.
    """
    artifact = read(path)
    with float32_on_the_cpu():
        return _rebuilt(artifact, limit).eval()


def _rebuilt(artifact: Artifact, limit: int) -> nn.Module:
    described = artifact.header.architecture
    if described is None:
        raise ValueError("This artifact names no architecture: call load_into(model, path) with its model.")
    architecture, arguments = find_architecture(described["name"]), described["arguments"]
    refuse_large_numbers(arguments)
    bounds = {"modules": 1000 + 64 * (len(artifact.state) + len(artifact.header.matrices)), "numbers": limit}
    with torch.device("meta"):
        twin = build(architecture, arguments, **bounds)
    compare(twin, artifact)
    drawn = all(matrix.family != LEARNED for matrix in artifact.header.matrices)
    with torch.random.fork_rng(devices=[]):  # the start values are replaced
        if architecture.start is not None and drawn:  # matrix by matrix: the plain weights never exist
            materialize(twin, start=partial(architecture.start, twin))
            return _fill(twin, artifact)
        model = build(architecture, arguments, **bounds)
    put_on_scaffold(model, artifact.header)
    return _fill(model, artifact)


def load_into(model: nn.Module, path: Path | str) -> nn.Module:
    """Wrap a plain model as an artifact says, give it the artifact's weights, and return it.

    Args:
        model: an ordinary model of the class that was saved; it is changed in place.
        path: what `save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another version, or the model has other matrices, is on a
            scaffold or on the meta device, has a buffer of another dtype than the saved one that no state
            gives back, or cannot be copied. The model is unchanged then. Or a W_seed is not the one that was
            saved.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"load_into takes a model and then a path, got {in_one_line(model)} first.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("This model is on the meta device: call model.to_empty(device='cpu') first.")
    artifact = read(path)
    if any(isinstance(module, Frozen) for module in model.modules()):
        raise ValueError("This model is on a scaffold already: pass a plain one.")
    _refuse_other_buffers(model, artifact.header)
    compare(_twin_of(model), artifact)
    put_on_scaffold(model, artifact.header)
    return _fill(model, artifact)


def _refuse_other_buffers(model: nn.Module, header: Header) -> None:
    """Refuse buffers that no state has in another dtype than float32, if the saved model had all in that."""
    if header.buffers or any(matrix.dtype != "float32" for matrix in header.matrices):
        return
    for name, buffer in buffers_left_out(model).items():
        if buffer.dtype is not torch.float32:
            raise ValueError(
                f"Buffer {name!r} is {buffer.dtype} in this model and was torch.float32 in the saved one; no "
                "file holds it. Build it under torch.set_default_dtype(torch.float32), and do not cast it."
            )


@torch.no_grad()
def deviation(model: nn.Module, artifact: Artifact) -> float | None:
    """The largest difference from the stored output, over its largest value; None without a probe.

    It is infinite where one of the two is NaN or ±∞ and the other is not the same.

    Args:
        model: the loaded model, in evaluation mode, on any one device.
        artifact: what it was loaded from.
    """
    if artifact.output is None:
        return None
    described = artifact.header.architecture
    call = plain_call if described is None else find_architecture(described["name"]).call
    stored = artifact.output
    device = next(chain(model.parameters(), model.buffers())).device
    try:
        with without_autocast(model):
            output = call(model, *(x.to(device, copy=True) for x in artifact.inputs)).cpu()
    except Exception as error:  # what a model raises for inputs that make no sense may be anything
        raise damaged(f"the model cannot take its stored inputs ({' '.join(str(error).split())})") from None
    if output.shape != stored.shape:
        raise damaged(f"its probe has an output of shape {tuple(stored.shape)}, not {tuple(output.shape)}")
    return relative_difference(output.double(), stored.double())


def relative_difference(found: Tensor, stored: Tensor) -> float:
    """max |found − stored| over the largest finite |stored|; infinite if NaN or ±∞ stand in other places."""
    if not torch.equal(found.isfinite(), stored.isfinite()):
        return math.inf
    finite = stored.isfinite()
    same = (found == stored) | (found.isnan() & stored.isnan())
    if not same[~finite].all():
        return math.inf
    if not finite.any():
        return 0.0
    largest = stored[finite].abs().max().item()
    return (found[finite] - stored[finite]).abs().max().item() / (largest or 1.0)


def _twin_of(model: nn.Module) -> nn.Module:
    """A copy of a model with all tensors on the meta device.

    Raises:
        ValueError: the model cannot be copied.
    """
    attributes = (each for module in model.modules() for each in vars(module).values())
    computed = [each for each in attributes if isinstance(each, Tensor) and not each.is_leaf]
    held = [*model.parameters(), *model.buffers(), *computed]  # the last as by `nn.utils.weight_norm`
    memo: dict[int, object] = {id(each): _on_meta(each) for each in held}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # what an attribute raises may be anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"load_into compares a copy of the model first, and this one cannot be copied ({reason}). Take "
            "that attribute out until it is loaded, or give its class a __deepcopy__."
        ) from error


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


@torch.no_grad()
def _fill(model: nn.Module, artifact: Artifact) -> nn.Module:
    """Draw every W_seed of a wrapped model, unless it holds the draw already, and load the state."""
    layers, made = scaffold_layers(model), buffers_left_out(model)
    for matrix in artifact.header.matrices:
        layer, source = layers[matrix.name], matrix.source
        dtype = getattr(torch, matrix.dtype)
        if layer.W_seed.dtype != dtype:
            layer.to(dtype)
        if matrix.name in artifact.stored:
            layer.W_seed.copy_(artifact.stored[matrix.name])
        elif source is not None:
            assert layer.source is not None, "it was compared"
            wanted = replace(layer.source, seed=source.seed, redraw=source.redraw)
            if layer.source != wanted or not is_untouched(layer.W_seed):
                layer.redraw(wanted)
    state = artifact.state | {name: artifact.state[tied] for name, tied in artifact.header.tied.items()}
    _cast(model, state)
    _cast_left_out(model, made, artifact.header.buffers)
    records = {dotted(name, "identity"): layer.identity for name, layer in layers.items()}
    model.load_state_dict(_with_versions(model, state | records))
    for matrix in artifact.header.matrices:
        _check_fingerprint(matrix, layers[matrix.name].fingerprint())
    return model


def _with_versions(model: nn.Module, state: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    """The state with the versions of its modules; without them, some convert it as one of their first."""
    versioned = OrderedDict(state)
    versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]  # the versions
    return versioned


def _cast(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give parameters and buffers the dtype that they have in the artifact."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in state and tensor.dtype != state[name].dtype:
            tensor.data = tensor.data.to(state[name].dtype)


def _cast_left_out(model: nn.Module, made: dict[str, Tensor], dtypes: dict[str, str]) -> None:
    """Round the buffers that no state has to the dtype that they had in the saved model.

    Args:
        model: the model.
        made: these buffers as the builder made them, before any layer was cast.
        dtypes: name → dtype. A name that the model lacks is ignored, since a forward pass may make buffers.
    """
    present = buffers_left_out(model)
    for name in dtypes.keys() & present.keys():
        present[name].data = made[name].to(getattr(torch, dtypes[name]))


def _check_fingerprint(matrix: MatrixRecord, found: Fingerprint) -> None:
    same = found == matrix.fingerprint if isinstance(found, str) else agree(found, matrix.fingerprint)
    if not same:
        raise ValueError(
            f"W_seed of layer {matrix.name!r} is not the one that was saved: its fingerprint differs. The "
            "artifact was changed, or a family was registered with another definition."
        )
