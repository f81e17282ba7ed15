"""Saving a model on a scaffold as one file: seed, adapters and what else is trained."""

import platform
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.architectures import find_architecture
from lottalora.scaffold.artifact.architectures import plain_call
from lottalora.scaffold.artifact.container import to_path
from lottalora.scaffold.artifact.container import write
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.header import settings_of
from lottalora.scaffold.artifact.plain_types import is_a
from lottalora.scaffold.artifact.precision import SCALE
from lottalora.scaffold.artifact.precision import check_precision
from lottalora.scaffold.artifact.precision import compressible
from lottalora.scaffold.artifact.precision import encode
from lottalora.scaffold.artifact.precision import holding
from lottalora.scaffold.artifact.records import CompressedRecord
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.zstd import compress
from lottalora.scaffold.backbone import beta_values
from lottalora.scaffold.backbone import scaffold_layers
from lottalora.scaffold.backbone import verify
from lottalora.scaffold.compose import composed_weights
from lottalora.scaffold.dense import TRAINED
from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.families import FAMILIES
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.layer import LottaLayer
from lottalora.scaffold.matrices import dotted
from lottalora.scaffold.reparametrization import reparametrized
from lottalora.scaffold.wrapping import Wrapping

BUILT_IN = "lottalora.scaffold.families"  # the module that defines the families of the library
W_SEED, PROBE = "W_seed/", "probe/"  # what the names of tensors that are no part of the state begin with
IDENTITY = ".identity"


def save(
    model: nn.Module,
    path: Path | str,
    *,
    architecture: tuple[str, Mapping[str, Any]] | None = None,
    probe: Sequence[Tensor] = (),
    metrics: Mapping[str, float] | None = None,
    licence: str = "",
    provenance: Mapping[str, str] | None = None,
    store: bool = False,
    precision: str = "fp32",
    zstandard: bool = False,
    overwrite: bool = False,
) -> None:
    r"""Save a wrapped model as one sealed `.safetensors` file, from which `load` rebuilds it.

    .. math:: h = \beta W_{seed}\, x + s\, B A x + b

    The file holds A (r, in), B (out, r), β and all else in `state_dict()`. W_seed is not in it: the header
    says how to draw it, and the SHA-256 of its bits. docs/format.md defines every field.

    Args:
        model: a model that `wrap` has wrapped.
        path: the file to write, usually NAME.safetensors.
        architecture: (name of a registered architecture, its arguments), for `load`; None if the file is for
            `load_into` alone.
        probe: inputs to store together with the model's output for them, so that others can compare.
        metrics: name → value, such as {"test accuracy": 0.98}.
        licence: such as "apache-2.0".
        provenance: name → text, such as {"commit": "1f0c…"}.
        store: whether to store the W_seed of families whose bits differ between machines, and of learned
            weights, which no seed gives back.
        precision: of the trained matrices in the file: A, B, heads and embeddings. "fp32" keeps them as they
            are; "bf16" and "fp16" round them; "int8" and "int4" keep a code for each number and a scale for
            every 32. Biases, norms, β and statistics stay as they are. The file says how far each matrix is
            from the model's. It loads in float32, and its probe is what the loaded model computes. Metrics
            are as given: measure them on the loaded model.
        zstandard: whether to compress all tensors, without loss, as one Zstandard frame (lottalora[zstd]).
            Other readers of safetensors then find that frame alone.
        overwrite: whether to replace a file of that name.

    Raises:
        FileExistsError: the file exists, and `overwrite` is False.
        FileNotFoundError: the folder of the file does not exist.
        ModuleNotFoundError: the package zstandard is asked for and missing.
        ValueError: the model was not made by `wrap`, is on the meta device or sharded, has pruned or
            parametrized adapters, or a W_seed that is not the draw of its source; W_seed was given and
            `store` is False; the architecture is not registered; a value is no plain data; or the precision
            is unknown or cannot hold a number.
    """
    check_precision(precision)
    layers = scaffold_layers(model)
    wrapping = _wrapping_of(layers)
    _refuse_a_part(model, wrapping)
    _refuse_what_cannot_be_saved(model, layers, store)
    tensors, tied = _state(model)
    matrices = [_record(name, layer, store) for name, layer in layers.items()]
    for matrix in matrices:
        if matrix.stored:
            tensors[W_SEED + matrix.name] = layers[matrix.name].W_seed
    call = plain_call if architecture is None else find_architecture(architecture[0]).call
    decoded, compressed = _compress(model, tensors, precision)
    with holding(model, decoded):
        tensors |= _probe(model, probe, call)
    header = Header(
        scaffold=settings_of(wrapping.scaffold),
        adapt=list(wrapping.adapt),
        keep=list(wrapping.keep),
        freeze=list(wrapping.freeze),
        compose=list(wrapping.compose),
        matrices=matrices,
        tied=tied,
        compressed=compressed,
        buffers=_dtypes_left_out(model, matrices),
        architecture=_described(architecture),
        probes=len(probe),
        metrics=dict(metrics or {}),
        licence=licence,
        provenance=dict(provenance or {}),
        versions=_versions(),
    )
    if zstandard:
        tensors, frame = compress(tensors)
        header = replace(header, zstandard=frame)
    text = header.to_json()
    Header.from_json(text)  # what cannot be read is not written
    write(to_path(path), tensors, text, overwrite=overwrite)


def state_names(model: nn.Module) -> dict[str, Tensor]:
    """`state_dict()` without the records of identity, which the header replaces."""
    ours = [name for name, module in model.named_modules() if isinstance(module, Frozen)]
    identities = {dotted(name, "identity") for name in ours}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in identities}


def _state(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors to write, each once, and alias → name of those that are tied."""
    first: dict[int, str] = {}
    tied = {}
    everything = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    held = {name: id(tensor) for name, tensor in everything}
    betas = {dotted(name, "beta") for name in beta_values(model)}  # of stacks they are numbered, and stay
    tensors = {}
    for name, tensor in state_names(model).items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"The model's state holds {name!r}, which is no tensor, so it cannot be saved.")
        original = first.setdefault(held.get(name, id(tensor)), name)
        if original == name:
            tensors[name] = tensor.view(()) if name in betas else tensor
        else:
            tied[name] = original
    taken = [name for name in tensors if name.startswith((W_SEED, PROBE, SCALE))]
    if taken:
        raise ValueError(f"The model's state holds {taken[0]!r}; names of that beginning are the format's.")
    return tensors, tied


def buffers_left_out(model: nn.Module) -> dict[str, Tensor]:
    """The buffers of real numbers that the state leaves out, by name, without W_seed."""
    return {
        dotted(layer, name): buffer
        for layer, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and buffer.dtype in DTYPES.values()
        if not (isinstance(module, Frozen) and name == "W_seed")
    }


def _dtypes_left_out(model: nn.Module, matrices: list[MatrixRecord]) -> dict[str, str]:
    """The dtypes of those buffers; empty if they and every W_seed are float32, as builders make them."""
    found = {name: _in_words(buffer.dtype) for name, buffer in buffers_left_out(model).items()}
    all_dtypes = {*found.values(), *(matrix.dtype for matrix in matrices)}
    return {} if all_dtypes == {"float32"} else found


def _in_words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _compress(
    model: nn.Module, tensors: dict[str, Tensor], precision: str
) -> tuple[dict[str, Tensor], list[CompressedRecord]]:
    """Encode the trained matrices among the tensors; return what a reader decodes, and the records."""
    decoded: dict[str, Tensor] = {}
    records: list[CompressedRecord] = []
    if precision == "fp32":
        return decoded, records
    for name in sorted(compressible(model).keys() & tensors.keys()):
        stored, decoded[name], record = encode(name, tensors[name], precision)
        tensors |= stored
        records.append(record)
    return decoded, records


def _wrapping_of(layers: Mapping[str, Frozen]) -> Wrapping:
    found = {id(layer.wrapping): layer.wrapping for layer in layers.values()}
    wrapping = next(iter(found.values()))
    if len(found) > 1 or wrapping is None:
        raise ValueError(
            "Some layers were not made by one call of wrap, so no file can say how to make them."
        )
    return wrapping


def _refuse_a_part(model: nn.Module, wrapping: Wrapping) -> None:
    """Refuse a model of which `wrap` has only seen a part: the names in the file would be those of the part.

    Raises:
        ValueError: it is such a model.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in wrapping.adapt:
        path, _, attribute = name.rpartition(".")
        holder = modules.get(path)
        if not isinstance(holder, Frozen) and (holder is None or attribute not in composed_weights(holder)):
            raise ValueError(
                f"Only a part of this model was wrapped, in which a weight is called {name!r}: save that "
                "part, or call wrap on the whole model."
            )


def _refuse_what_cannot_be_saved(model: nn.Module, layers: Mapping[str, Frozen], store: bool) -> None:
    for name, layer in layers.items():
        changed = reparametrized(layer, (*TRAINED, "bias"))
        if changed:
            raise ValueError(f"Layer {name!r} cannot be saved: {changed}")
        if layer.W_seed.is_meta or isinstance(layer.W_seed, nn.Parameter):
            where = "on the meta device" if layer.W_seed.is_meta else "sharded or a parameter"
            raise ValueError(f"W_seed of layer {name!r} is {where}: save a model that holds it whole.")
        if layer.source is None and not store:
            raise ValueError(
                f"W_seed of layer {name!r} was given, so no seed gives it back: pass store=True to store it."
            )
        layer.check(torch.empty(0))
    differing = [name for name in verify(model) if layers[name].source is not None]
    if differing:
        raise ValueError(
            f"W_seed of layer {differing[0]!r} is not what its seed gives: somebody wrote into it. Restore "
            "it with set_backbone_seed, or leave without_scaffold."
        )


def _record(name: str, layer: LottaLayer | FrozenEmbedding, store: bool) -> MatrixRecord:
    source, record = layer.source, layer.record()
    adapter = getattr(layer, "adapter", None)
    return MatrixRecord(
        name=name,
        stream="" if source is None else source.name,
        shape=record.shape,
        stack=1 if source is None else source.stack,
        place="adapt" if isinstance(adapter, Scaffold) else "freeze",
        family=record.family,
        registered=record.family != LEARNED and is_registered(record.family),
        parameters=record.parameters,
        seed="" if source is None else str(source.seed),
        redraw="" if source is None else str(source.redraw),
        dtype=_in_words(layer.W_seed.dtype),
        rank=0 if adapter is None else adapter.rank,
        scale=record.scale,
        options=record.options,
        fingerprint=layer.fingerprint(),
        stored=store and (source is None or not source.exact),
    )


def is_registered(family: str) -> bool:
    """Whether a family is a user's."""
    return getattr(FAMILIES[family].distribution, "__module__", "") != BUILT_IN


def _described(architecture: tuple[str, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if architecture is None:
        return None
    name, arguments = architecture
    arguments = {key: list(each) if isinstance(each, tuple) else each for key, each in arguments.items()}
    for key, value in arguments.items():
        if not is_a(value, Any):
            raise ValueError(
                f"{key}={value!r} of architecture {name!r} is no plain value, so it cannot be saved."
            )
    return {"name": name, "arguments": arguments}


@torch.no_grad()
def _probe(model: nn.Module, inputs: Sequence[Tensor], call: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The inputs, and the output of the model in evaluation."""
    if not inputs:
        return {}
    training = {module: module.training for module in model.modules()}
    try:
        output = call(model.eval(), *inputs)
    finally:
        for module, before in training.items():
            module.training = before
    return {f"{PROBE}input/{i}": each for i, each in enumerate(inputs)} | {f"{PROBE}output": output}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
