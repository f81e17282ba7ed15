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

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.architectures import find_architecture
from lottalora.scaffold.artifact.architectures import plain_call
from lottalora.scaffold.artifact.arguments import check_pair
from lottalora.scaffold.artifact.arguments import described
from lottalora.scaffold.artifact.container import Damaged
from lottalora.scaffold.artifact.container import to_path
from lottalora.scaffold.artifact.container import write
from lottalora.scaffold.artifact.defaults import without_autocast
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.header import settings_of
from lottalora.scaffold.artifact.precision import check_precision
from lottalora.scaffold.artifact.precision import compressible
from lottalora.scaffold.artifact.precision import decoded_bytes
from lottalora.scaffold.artifact.precision import encode
from lottalora.scaffold.artifact.precision import holding
from lottalora.scaffold.artifact.records import CompressedRecord
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.savable import refuse_a_part
from lottalora.scaffold.artifact.savable import refuse_what_cannot_be_saved
from lottalora.scaffold.artifact.savable import wrapping_of
from lottalora.scaffold.artifact.state import PROBE
from lottalora.scaffold.artifact.state import W_SEED
from lottalora.scaffold.artifact.state import dtype_name
from lottalora.scaffold.artifact.state import dtypes_left_out
from lottalora.scaffold.artifact.state import tensors_and_ties
from lottalora.scaffold.artifact.zstd import compress
from lottalora.scaffold.families.family import FAMILIES
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.wrapping.places import in_one_line

BUILT_IN = "lottalora.scaffold.families.catalogue"  # the module that defines the families of the library


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
        FileExistsError: the file exists, and `overwrite` is False; or a folder or device has that name.
        FileNotFoundError: the folder of the file does not exist.
        ModuleNotFoundError: the package zstandard is asked for and missing.
        ValueError: the model was not made by `wrap`, is on the meta device or sharded, has pruned or
            parametrized adapters, or a W_seed that is not the draw of its source; W_seed was given and
            `store` is False; the architecture is not registered, or has an argument that `load` refuses; the
            probe is no list of tensors, or the output for it no tensor; a value is no plain data, or a number
            2⁵³ or more; or the precision is unknown or cannot hold a number.
    """
    check_precision(precision)
    layers = scaffold_layers(model)
    wrapping = wrapping_of(layers)
    refuse_a_part(model, wrapping)
    refuse_what_cannot_be_saved(model, layers, store)
    settings = settings_of(wrapping.scaffold)
    named = {"metrics": metrics or {}, "provenance": provenance or {}, "settings of the scaffold": settings}
    for what, values in (named | {"parameters of the family": settings["parameters"]}).items():
        _refuse_numbers(what, values)
    tensors, tied = tensors_and_ties(model)
    matrices = [_record(name, layer, store) for name, layer in layers.items()]
    for matrix in matrices:
        if matrix.stored:
            tensors[W_SEED + matrix.name] = layers[matrix.name].W_seed
    check_pair(architecture)
    call = plain_call if architecture is None else find_architecture(architecture[0]).call
    decoded, compressed = _compress(model, tensors, precision)
    with holding(model, decoded):
        tensors |= _probe(model, probe, call)
    header = Header(
        scaffold=settings,
        adapt=list(wrapping.adapt),
        keep=list(wrapping.keep),
        freeze=list(wrapping.freeze),
        compose=list(wrapping.compose),
        matrices=matrices,
        tied=tied,
        compressed=compressed,
        buffers=dtypes_left_out(model, matrices),
        architecture=described(architecture),
        probes=len(probe),
        metrics=dict(metrics or {}),
        licence=licence,
        provenance=dict(provenance or {}),
        versions=_versions(),
    )
    if zstandard:
        tensors, frame = compress(tensors, decoded_bytes(compressed, tensors))
        header = replace(header, zstandard=frame)
    text = header.to_json()
    try:
        Header.from_json(text)  # what cannot be read is not written
    except Damaged as error:
        raise ValueError(
            f"This model cannot be saved, since no reader would take it: {error.reason}."
        ) from None
    write(to_path(path), tensors, text, overwrite=overwrite)


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
        dtype=dtype_name(layer.W_seed.dtype),
        rank=0 if adapter is None else adapter.rank,
        scale=record.scale,
        options=record.options,
        fingerprint=layer.fingerprint(),
        stored=store and (source is None or not source.exact),
    )


def is_registered(family: str) -> bool:
    """Whether a family is a user's."""
    return getattr(FAMILIES[family].distribution, "__module__", "") != BUILT_IN


def _refuse_numbers(what: str, values: Mapping[str, Any]) -> None:
    """Refuse names that are no text, and numbers that no reader takes.

    Raises:
        ValueError: there is one.
    """
    for name, value in values.items():
        if not isinstance(name, str):
            raise ValueError(f"{what} cannot be saved under the name {name!r}: a name is text.")
        if isinstance(value, int | float) and not abs(value) < 2**53:
            raise ValueError(
                f"{what} cannot be saved with {name} = {value!r}: an artifact holds finite numbers below 2⁵³."
            )


@torch.no_grad()
def _probe(model: nn.Module, inputs: Sequence[Tensor], call: Any) -> dict[str, Tensor]:  # noqa: ANN401
    """The inputs, and the output of the model in evaluation.

    Raises:
        ValueError: the inputs are no list of tensors, or the output is no tensor.
    """
    if isinstance(inputs, Tensor) or not all(isinstance(each, Tensor) for each in inputs):
        raise ValueError(f"probe takes a list of tensors, such as [x], got {in_one_line(inputs)}.")
    if not inputs:
        return {}
    training = {module: module.training for module in model.modules()}
    try:
        with without_autocast(model):
            output = call(model.eval(), *inputs)
    finally:
        for module, before in training.items():
            module.training = before
    if not isinstance(output, Tensor):
        raise ValueError(
            f"The output for the probe is {in_one_line(output)}, and a file holds one tensor. Pick it by "
            "call= of register_architecture, or leave out probe."
        )
    return {f"{PROBE}input/{i}": each for i, each in enumerate(inputs)} | {f"{PROBE}output": output}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
