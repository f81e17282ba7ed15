"""Converting the owners of every matrix, as its place says: to layers of ours, or to composed weights."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.layers import convolution
from lottalora.scaffold.layers.compose import compose as compose_weights
from lottalora.scaffold.layers.composed_weight import Layout
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.dense import TRAINED
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.kinds import as_matrix
from lottalora.scaffold.layers.kinds import kind_of
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.layers.replaced import become
from lottalora.scaffold.wrapping.account import Entry
from lottalora.scaffold.wrapping.account import kept
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import Owner
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.matrices import find_matrices
from lottalora.scaffold.wrapping.streams import stream_names

FROZEN = Adapter(rank=0, train_beta=False)  # h = W_seed x + b, nothing trained
Layer = LottaLayer | FrozenEmbedding
Composed = dict[int, tuple[nn.Module, dict[str, LottaWeight]]]  # by the owner's id


def convert_all(
    model: nn.Module,
    place_of: dict[str, str],
    way_of: dict[str, str | None],
    scaffold_of: Mapping[str, Scaffold],
    drawn: bool,
) -> list[Entry]:
    """Convert the owners of every matrix according to its place and settings, and return the entries."""
    streams = stream_names(model)
    entries: list[Entry] = []
    composed: Composed = {}
    for matrix in find_matrices(model):
        place, way = place_of[matrix.name], way_of[matrix.name]
        if place == "keep":
            entries.append(kept(matrix))
        else:
            own = scaffold_of[matrix.name]
            entries.append(_convert(matrix, place, way, own, drawn, composed, streams))
    for owner, weights in composed.values():
        compose_weights(owner, weights)
    return entries


def _convert(
    matrix: Matrix,
    place: str,
    way: str | None,
    scaffold: Scaffold,
    drawn: bool,
    composed: Composed,
    streams: dict[str, str],
) -> Entry:
    """Convert the owners of one matrix according to its place; tied owners share W_seed, A, B and β.

    Composed weights are added to `composed` and not to their modules yet, since a module may have several.
    """
    first, shape = matrix.owners[0], tuple(matrix.value.shape)
    layout = Layout.of(first.reader, matrix.value) if way == "compose" else None
    source = None if scaffold.family == LEARNED else _source(first, layout, scaffold, streams)
    if source is None:
        dense = as_matrix(first.module) if layout is None else layout.to_matrix(matrix.value)
        W_seed = dense.detach().clone()
    else:
        W_seed = _frozen(source, matrix.value, drawn)
    adapter = scaffold if place == "adapt" else FROZEN
    frozen_bias = place == "freeze" or scaffold.bias == "frozen"
    holders: list[Layer] = []
    weight = None
    if layout is not None:
        embeddings = [cast(nn.Embedding, o.module) for o in matrix.owners if o.kind == "embedding"]
        padding = embeddings[0].padding_idx if embeddings else None
        weight = LottaWeight(W_seed, adapter, layout, source=source, padding_idx=padding)
        holders.append(weight)
    for owner in matrix.owners:
        if weight is not None and owner.kind != "linear":
            composed.setdefault(id(owner.module), (owner.module, {}))[1][owner.attribute] = weight
            continue
        own = _adapter_for(owner.module, scaffold) if place == "adapt" else FROZEN
        layer = _replacement(owner.module, W_seed, own, source, frozen_bias)
        holders.append(become(owner.module, layer))
    _share(holders)
    trained = {id(p): p.numel() for layer in holders for p in _own_parameters(layer)}
    rank = adapter.rank if place == "adapt" else None
    note = ""
    if place == "adapt" and isinstance(holders[0], LottaLayer):
        note = _note(matrix, holders[0], scaffold, layout)
    return Entry(matrix.name, shape, place, rank, sum(trained.values()), matrix.value.numel(), note)


def _share(holders: Sequence[Layer]) -> None:
    """Tie the trained parameters of layers that had a tied weight, and tell all of its padding row."""
    padding = next((layer.padding_idx for layer in holders if layer.padding_idx is not None), None)
    for layer in holders:
        layer.padding_idx = padding
    for layer in holders[1:]:
        for name in TRAINED:
            if hasattr(holders[0], name):
                setattr(layer, name, getattr(holders[0], name))


def _own_parameters(layer: Layer) -> list[nn.Parameter]:
    """The parameters that a layer trains instead of its weight: A, B, β and those of options."""
    if isinstance(layer, FrozenEmbedding):
        return []
    own = [getattr(layer, name) for name in TRAINED]
    norm = [] if layer.norm is None else list(layer.norm.parameters())
    return [p for p in own if p is not None] + norm


def _source(owner: Owner, layout: Layout | None, scaffold: Scaffold, streams: dict[str, str]) -> Source:
    """The source of a weight: `weight` is drawn under its layer's name, other parameters under their own."""
    layer = streams[owner.layer]
    name = layer if owner.attribute == "weight" else dotted(layer, owner.attribute)
    out, columns = as_matrix(owner.module).shape if layout is None else layout.matrix
    stack = 1 if layout is None else layout.stack
    parameters = dict(scaffold.parameters)
    return Source(scaffold.seed, name, (out, columns), scaffold.family, parameters, stack=stack)


def _frozen(source: Source, like: Tensor, drawn: bool) -> Tensor:
    if like.is_meta or not drawn:
        return torch.empty(source.shape, dtype=like.dtype, device=like.device)
    return mark(draw(source, dtype=like.dtype).to(like.device), source)


def _adapter_for(module: nn.Module, scaffold: Scaffold) -> Adapter:
    """The adapter of one layer, without the residual if the layer changes the shape."""
    if not scaffold.residual or _keeps_shape(module):
        return scaffold
    return replace(scaffold, residual=False)


def _keeps_shape(module: nn.Module) -> bool:
    if kind_of(module) == "convolution":
        return convolution.keeps_shape(cast(nn.Conv2d, module))
    out, columns = as_matrix(module).shape
    return out == columns


def _replacement(
    module: nn.Module, W_seed: Tensor, adapter: Adapter, source: Source | None, frozen_bias: bool
) -> Layer:
    """The layer of ours that a module becomes."""
    if kind_of(module) == "embedding":
        return FrozenEmbedding(W_seed, source, cast(nn.Embedding, module))
    bias = cast(Tensor | None, module.bias)
    if bias is not None and frozen_bias:
        bias = bias.detach().clone()  # it may be tied to one that is trained
    if kind_of(module) != "convolution":
        transposed = kind_of(module) == "transposed"
        return LottaLinear(W_seed, adapter, bias=bias, source=source, transposed=transposed)
    like = cast(nn.Conv2d, module)  # or another class with its attributes
    layer = convolution.convolution_like(like)
    return layer(W_seed, adapter, like=like, bias=bias, source=source)


def _note(matrix: Matrix, layer: LottaLayer, scaffold: Scaffold, layout: Layout | None) -> str:
    """What is unusual about an adapted matrix, for the account."""
    notes, adapter = [], layer.adapter
    rows, columns = layer.W_seed.shape
    if layout is not None:
        left_out = [o for o in ("dropout", "residual", "layer_norm") if getattr(scaffold, o)]
        notes.append("composed" + "".join(f", no {option}" for option in left_out))
    if layout is not None and layout.stack > 1:
        rows //= layout.stack
        notes.append(f"{layout.stack} matrices")
    if adapter.rank > min(rows, columns):
        notes.append(f"rank over min(out, in) = {min(rows, columns)}")
    if layout is None and scaffold.residual and not adapter.residual:
        notes.append("no residual: the shape changes")
    if len(matrix.owners) > 1:
        notes.append(f"tied: {', '.join(matrix.names[1:])}")
    return "; ".join(notes)
