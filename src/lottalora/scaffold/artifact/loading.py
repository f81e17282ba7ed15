"""Loading an artifact: check the file, rebuild its model on the meta device, compare; only then allocate."""

import copy
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.architectures import build
from lottalora.scaffold.artifact.architectures import find_architecture
from lottalora.scaffold.artifact.architectures import plain_call
from lottalora.scaffold.artifact.container import Sealed
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.container import read as read_sealed
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.header import MatrixRecord
from lottalora.scaffold.artifact.precision import SCALE
from lottalora.scaffold.artifact.precision import decode
from lottalora.scaffold.artifact.saving import PROBE
from lottalora.scaffold.artifact.saving import W_SEED
from lottalora.scaffold.artifact.saving import buffers_left_out
from lottalora.scaffold.artifact.saving import state_names
from lottalora.scaffold.artifact.zstd import decompress
from lottalora.scaffold.backbone import scaffold_layers
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.identity import Fingerprint
from lottalora.scaffold.identity import agree
from lottalora.scaffold.marks import is_untouched
from lottalora.scaffold.materialize import materialize
from lottalora.scaffold.matrices import dotted
from lottalora.scaffold.matrices import find_matrices
from lottalora.scaffold.matrices import projected_biases
from lottalora.scaffold.places import in_one_line
from lottalora.scaffold.wrap import wrap

LIMIT = 2**31  # numbers of all parameters together
LARGEST_ARGUMENT = 2**24  # of a whole number among an architecture's arguments
TOLERANCE = 1e-5  # of the largest output, between machines


@dataclass(frozen=True)
class Artifact:
    """A file that was read and checked by itself; nothing was built or drawn.

    Args:
        header: what it says.
        state: the stored tensors of the model, by name; those that are compressed are decoded.
        stored: the W_seed that it stores, by layer.
        inputs: of the stored probe; empty without.
        output: of the stored probe; None without.
        sealed: the file.
    """

    header: Header
    state: dict[str, Tensor]
    stored: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    sealed: Sealed


def read(path: Path | str) -> Artifact:
    """Read and check a file without building a model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no artifact, is damaged, or belongs to another version.
    """
    sealed = read_sealed(path)
    header = Header.from_json(sealed.header)
    header.to_scaffold()
    tensors = dict(sealed.tensors)
    if header.zstandard is not None:
        tensors = decompress(header.zstandard, tensors)
    expected = [f"{PROBE}input/{i}" for i in range(header.probes)] if header.probes <= len(tensors) else [""]
    expected += [f"{PROBE}output"] if header.probes else []
    stored = {m.name: W_SEED + m.name for m in header.matrices if m.stored}
    named = {name for name in tensors if name.startswith((PROBE, W_SEED))}
    if named != {*expected, *stored.values()}:
        raise damaged("its stored probe or W_seed is not what its header says")
    if any(source in header.tied or source not in tensors for source in header.tied.values()):
        raise damaged("a tied tensor is tied to none that it holds")
    quantised = {SCALE + each.name for each in header.compressed if each.group}
    if {name for name in tensors if name.startswith(SCALE)} != quantised:
        raise damaged("its scales are not those of its compressed tensors")
    probe = [tensors.pop(name) for name in expected]
    W_seeds = {name: tensors.pop(key) for name, key in stored.items()}
    for matrix in header.matrices:
        _check_matrix(matrix, W_seeds.get(matrix.name))
    decoded = {each.name: decode(each, tensors) for each in header.compressed}
    tensors = {name: tensor for name, tensor in (tensors | decoded).items() if name not in quantised}
    output = probe.pop() if header.probes else None
    return Artifact(header, tensors, W_seeds, tuple(probe), output, sealed)


def load(path: Path | str, *, limit: int = LIMIT) -> nn.Module:
    """Build the model of an artifact, in evaluation mode, on the CPU.

    No code of the file runs and nothing is imported by a name from it: the architecture must be registered.

    Args:
        path: what `save` wrote.
        limit: the most numbers that the parameters of the plain model may have together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another version; its architecture is not registered, larger than
            `limit`, or not that of the stored tensors; or a W_seed is not the one that was saved.
    """
    artifact = read(path)
    described = artifact.header.architecture
    if described is None:
        raise ValueError("This artifact names no architecture: call load_into(model, path) with its model.")
    architecture, arguments = find_architecture(described["name"]), described["arguments"]
    _bound(arguments)
    bounds = {"modules": 1000 + 64 * (len(artifact.state) + len(artifact.header.matrices)), "numbers": limit}
    with torch.device("meta"):
        twin = build(architecture, arguments, **bounds)
    _compare(twin, artifact)
    drawn = all(matrix.family != LEARNED for matrix in artifact.header.matrices)
    with torch.random.fork_rng(devices=[]):  # the start values are replaced
        if architecture.start is not None and drawn:  # matrix by matrix: the plain weights never exist
            materialize(twin, start=partial(architecture.start, twin))
            return _fill(twin, artifact).eval()
        model = build(architecture, arguments, **bounds)
    _put(model, artifact.header)
    return _fill(model, artifact).eval()


def load_into(model: nn.Module, path: Path | str) -> nn.Module:
    """Wrap a plain model as an artifact says, give it the artifact's weights, and return it.

    Args:
        model: an ordinary model of the class that was saved; it is changed in place.
        path: what `save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another version, or the model has other matrices, is on a
            scaffold or on the meta device. The model is unchanged then. Or a W_seed is not the one that was
            saved.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"load_into takes a model and then a path, got {in_one_line(model)} first.")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("This model is on the meta device: call model.to_empty(device='cpu') first.")
    artifact = read(path)
    if any(isinstance(module, Frozen) for module in model.modules()):
        raise ValueError("This model is on a scaffold already: pass a plain one.")
    _compare(_twin_of(model), artifact)
    _put(model, artifact.header)
    return _fill(model, artifact)


@torch.no_grad()
def deviation(model: nn.Module, artifact: Artifact) -> float | None:
    """The largest difference from the stored output, over its largest value; None without a probe.

    Args:
        model: the loaded model, in evaluation mode, on the CPU.
        artifact: what it was loaded from.
    """
    if artifact.output is None:
        return None
    described = artifact.header.architecture
    call = plain_call if described is None else find_architecture(described["name"]).call
    stored = artifact.output
    try:
        output = call(model, *(x.clone() for x in artifact.inputs))
    except Exception as error:  # what a model raises for inputs that make no sense may be anything
        raise damaged(f"the model cannot take its stored inputs ({' '.join(str(error).split())})") from None
    if output.shape != stored.shape:
        raise damaged(f"its probe has an output of shape {tuple(stored.shape)}, not {tuple(output.shape)}")
    largest = stored.double().abs().max().item() if stored.numel() else 0.0
    difference = (output.double() - stored.double()).abs().max().item() if stored.numel() else 0.0
    return difference / (largest or 1.0)


def _check_matrix(matrix: MatrixRecord, stored: Tensor | None) -> None:
    source = matrix.source
    if matrix.dtype not in DTYPES:
        raise damaged(f"W_seed of {matrix.name!r} has the dtype {matrix.dtype!r}")
    if source is None and stored is None:
        raise damaged(f"W_seed of {matrix.name!r} was given and is not stored")
    if stored is not None and list(stored.shape) != matrix.shape:
        raise damaged(f"W_seed of {matrix.name!r} has the shape {list(stored.shape)}, not {matrix.shape}")
    if stored is not None and str(stored.dtype) != f"torch.{matrix.dtype}":
        raise damaged(f"W_seed of {matrix.name!r} is {stored.dtype}, not {matrix.dtype}")


def _bound(value: Any) -> None:  # noqa: ANN401  plain data, at any depth
    """Refuse whole numbers with which a builder could allocate without bound."""
    if isinstance(value, int) and abs(value) > LARGEST_ARGUMENT:
        raise ValueError(
            f"An argument of the artifact's architecture is {value}; {LARGEST_ARGUMENT} is allowed."
        )
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _bound(each)


def _twin_of(model: nn.Module) -> nn.Module:
    """A copy of a model with all tensors on the meta device."""
    held = [*model.parameters(), *model.buffers()]
    memo: dict[int, object] = {id(each): _on_meta(each) for each in held}
    return copy.deepcopy(model, memo)


def _on_meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _compare(twin: nn.Module, artifact: Artifact) -> None:
    """Refuse a model, on the meta device, that is not the one of the artifact; it is wrapped afterwards."""
    header = artifact.header
    ours = {matrix.name for matrix in find_matrices(twin)}
    vectors = _frozen_vectors(artifact)
    _same_names({*header.adapt, *header.keep, *header.freeze} - vectors, ours, "matrix")
    of_twin = projected_biases(twin) | {name for name, _ in twin.named_parameters(remove_duplicate=False)}
    _refuse_lacking(vectors - of_twin - _own_norms(header), "vector")
    _put(twin, header)
    layers = scaffold_layers(twin)
    for matrix in header.matrices:
        layer = layers.get(matrix.name)
        if layer is None:
            raise ValueError(
                f"The artifact has a scaffold layer {matrix.name!r}, and this model has none there."
            )
        _same_record(matrix, layer)
    _same_names({matrix.name for matrix in header.matrices}, set(layers), "scaffold layer")
    expected = state_names(twin)
    found = artifact.state | {name: artifact.state[source] for name, source in header.tied.items()}
    if len(found) != len(artifact.state) + len(header.tied):
        raise damaged("a tensor is both stored and tied")
    _same_names(set(found), set(expected), "tensor")
    for name, tensor in expected.items():
        if tensor.shape != found[name].shape:
            raise ValueError(
                f"Tensor {name!r} has the shape {tuple(found[name].shape)} in the artifact, and "
                f"{tuple(tensor.shape)} in this model: it is another architecture."
            )
        if tensor.is_floating_point() != found[name].is_floating_point():
            raise ValueError(
                f"Tensor {name!r} is {found[name].dtype} in the artifact, and {tensor.dtype} here."
            )


def _frozen_vectors(artifact: Artifact) -> set[str]:
    """The names in `freeze` that are vectors: their values are stored, those of a frozen matrix are drawn."""
    stored = artifact.state.keys() | artifact.header.tied.keys()
    return stored & set(artifact.header.freeze)


def _own_norms(header: Header) -> set[str]:
    """What `freeze` may name beyond the plain model: gain and shift of the option `layer_norm`.

    Earlier versions let patterns match them. They are trained again, as the option says.
    """
    layers = [matrix.name for matrix in header.matrices if "layer_norm" in matrix.options]
    return {dotted(layer, "norm", each) for layer in layers for each in ("weight", "bias")}


def _same_names(theirs: set[str], ours: set[str], what: str) -> None:
    _refuse_lacking(theirs - ours, what)
    extra = sorted(ours - theirs)
    if extra:
        raise ValueError(
            f"This model has {what} {extra[0]!r}, the artifact has not: it is another architecture."
        )


def _refuse_lacking(names: set[str], what: str) -> None:
    if names:
        raise ValueError(
            f"This model lacks {what} {min(names)!r} of the artifact: it is another architecture."
        )


def _same_record(matrix: MatrixRecord, layer: Frozen) -> None:
    record, adapter = layer.record(), getattr(layer, "adapter", None)
    source = layer.source
    ours = {
        "stream": "" if source is None else source.name,
        "shape": record.shape,
        "stack": 1 if source is None else source.stack,
        "place": "adapt" if isinstance(adapter, Scaffold) else "freeze",
        "family": record.family,
        "parameters": record.parameters,
        "rank": 0 if adapter is None else adapter.rank,
        "scale": record.scale,
        "options": record.options,
    }
    for name, value in ours.items():
        if getattr(matrix, name) != value:
            raise ValueError(
                f"Layer {matrix.name!r} has {name} {getattr(matrix, name)!r} in the artifact, and {value!r} "
                "in this model: it is another architecture."
            )


def _put(model: nn.Module, header: Header) -> None:
    """Wrap a model as the header says, without drawing."""
    own = _own_norms(header) - {name for name, _ in model.named_parameters(remove_duplicate=False)}
    freeze = [name for name in header.freeze if name not in own]
    wrap(model, header.to_scaffold(), drawn=False, keep=header.keep, freeze=freeze, compose=header.compose)


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
    model.load_state_dict(state | records)
    for matrix in artifact.header.matrices:
        _check_fingerprint(matrix, layers[matrix.name].fingerprint())
    return model


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
