"""Putting a model on a scaffold: every matrix is adapted, frozen or kept, and all are accounted for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar
from typing import cast

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold import convolution
from lottalora.scaffold.account import Account
from lottalora.scaffold.account import Entry
from lottalora.scaffold.account import kept
from lottalora.scaffold.account import trained_numbers
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.asked_classes import refuse_asked_classes
from lottalora.scaffold.attention import SplitAttention
from lottalora.scaffold.compose import compose as compose_weights
from lottalora.scaffold.composed_weight import Layout
from lottalora.scaffold.composed_weight import LottaWeight
from lottalora.scaffold.draw import Source
from lottalora.scaffold.draw import draw
from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.kinds import as_matrix
from lottalora.scaffold.kinds import kind_of
from lottalora.scaffold.layer import LottaLayer
from lottalora.scaffold.linear import LottaLinear
from lottalora.scaffold.marks import mark
from lottalora.scaffold.matrices import Matrix
from lottalora.scaffold.matrices import Owner
from lottalora.scaffold.matrices import dotted
from lottalora.scaffold.matrices import find_matrices
from lottalora.scaffold.new_class import new_classes
from lottalora.scaffold.new_class import refuse_fixed_classes
from lottalora.scaffold.other_holders import refuse_other_holders
from lottalora.scaffold.places import Places
from lottalora.scaffold.refuse import refuse_computed_biases
from lottalora.scaffold.refuse import refuse_parallel
from lottalora.scaffold.refuse import refuse_unused_ranks
from lottalora.scaffold.refuse import refuse_what_cannot_be
from lottalora.scaffold.refuse import refuse_what_is_no_model
from lottalora.scaffold.replaced import Replaced
from lottalora.scaffold.set_aside import change
from lottalora.scaffold.siblings import share_inputs
from lottalora.scaffold.splittable import attentions_to_split
from lottalora.scaffold.splittable import copied
from lottalora.scaffold.splittable import refuse_what_cannot_be_split
from lottalora.scaffold.state import check_state
from lottalora.scaffold.streams import stream_names
from lottalora.scaffold.tied_keys import follow_ties
from lottalora.scaffold.tied_keys import tie_what_has_no_values
from lottalora.scaffold.vectors import freeze_vectors
from lottalora.scaffold.vectors import vectors_to_freeze
from lottalora.scaffold.wrapping import Wrapping

LAYERS = {"linear", "transposed", "convolution"}  # kinds with a layer of ours
FROZEN = Adapter(rank=0, train_beta=False)  # h = W_seed x + b, nothing trained
TRAINED = ("A", "B", "beta", "magnitude")
PACKED = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")
REPLACED = ("weight", "bias", *PACKED)  # parameters of a layer that becomes one of ours
Layer = LottaLayer | FrozenEmbedding
Other = TypeVar("Other", bound=nn.Module)


def wrap(
    model: nn.Module,
    scaffold: Scaffold,
    *,
    keep: Sequence[str | type[nn.Module]] = (),
    freeze: Sequence[str | type[nn.Module]] = (),
    compose: Sequence[str | type[nn.Module]] = (),
    drawn: bool = True,
) -> Account:
    r"""Replace the weight matrices of a model, in place, by frozen random ones with trained adapters.

    .. math:: W x + b \;\to\; \beta W_{seed}\, x + s\, B A x + b

    A matrix is a parameter of two or more axes. A parameter that has at most one axis longer than 1 and is
    not a layer's weight, such as a class token, is a vector. A matrix is adapted unless `keep` or `freeze`
    names it. They take dotted names, shell patterns, and classes of modules, with their subclasses. A pattern
    that matches a module covers everything in it. A name wins over a shell pattern.

    Linear layers, convolutions and attention become layers of ours. Every other matrix (of a GRU, an
    embedding, a stack of experts) must be named in `compose`, and its module then reads β W_seed + s B A
    instead; or in `keep`.

    Vectors (biases, norms) stay trained, except the biases that `scaffold.bias` freezes and those of frozen
    matrices. A vector that `freeze` names keeps its value and becomes a buffer. The bias of q, k and v of an
    `nn.MultiheadAttention` may be named whole, `in_proj_bias`, or in part, `q_proj.bias`. The gain and shift
    that `layer_norm` adds belong to the adapter: no pattern names them.

    W_seed is drawn under a matrix's name within `model`. So two parts of one shape that are wrapped one by
    one under one seed have the same W_seed: wrap the whole, or give each part a seed of its own.

    Afterwards `model.parameters()` are the trained parameters, and `model.state_dict()` does not contain
    W_seed. Modules are changed in place, so a root module, a module used twice and references held elsewhere
    all see the change. On the meta device nothing is drawn until `materialize`. If wrap raises an error, the
    model is unchanged.

    Args:
        model: any module.
        scaffold: rank, α, family, backbone seed and the options. Composed weights ignore dropout, residual
            and layer_norm.
        keep: what stays dense and trained, for example ["head", nn.Embedding].
        freeze: what becomes random and frozen without an adapter, for example ["*.mlp.*"]. Embeddings are
            allowed.
        compose: matrices to compose if they belong to no layer of ours, for example [nn.GRU, "*.experts.*"].
            ["*"] means all of them, and may match none. An embedding computes only the rows looked up.
        drawn: whether to draw W_seed. False leaves its memory uninitialised, for `shard`, which draws the
            rows of one process.

    Returns:
        The account of every parameter.

    Raises:
        ValueError: an argument is of another kind; a matrix can be neither adapted nor frozen and is not
            kept; a pattern matches nothing; a weight is named in both keep= and freeze=; a layer cannot have
            an option; the model is on a scaffold already, or in DDP or FSDP; something else holds a weight (a
            hook, shared memory, a list of a module); a module cannot change its class, or a forward asks for
            it; a layer's bias is pruned or parametrized; an attention cannot be split; or inference mode is
            on.
    """
    refuse_what_is_no_model(model, scaffold)
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "What is made under torch.inference_mode() cannot be trained: call wrap outside of it "
            "(torch.no_grad() is fine)."
        )
    if any(isinstance(module, LottaLayer | FrozenEmbedding) for module in model.modules()):
        raise ValueError("This model is on a scaffold already: wrap a fresh one, or call set_backbone_seed.")
    refuse_parallel(model)
    tie_what_has_no_values(model)
    matrices = find_matrices(model)
    places = Places(model, matrices, keep, freeze, compose)
    place_of = {m.name: "keep" if m.fixed else places.of(m.names) for m in matrices}
    way_of = {m.name: _way(m, place_of[m.name], places.composes(m.names)) for m in matrices}
    refuse_what_cannot_be(matrices, place_of, way_of, scaffold)
    refuse_unused_ranks([m.names for m in matrices if place_of[m.name] == "adapt"], scaffold)
    attentions = attentions_to_split(matrices, place_of, way_of)
    refuse_what_cannot_be_split(model, attentions)
    refuse_computed_biases(matrices, place_of)
    to_freeze = vectors_to_freeze(model, places, attentions)
    refuse_other_holders(model, _replaced(matrices, place_of, attentions))
    changes = list(new_classes(matrices, place_of, way_of))
    refuse_fixed_classes(changes)
    refuse_asked_classes(model, changes)

    full = sum(p.numel() for p in model.parameters())
    for attention in attentions.values():
        _become(attention, SplitAttention(attention))
    entries = _convert_all(model, place_of, way_of, scaffold, drawn)
    model.register_load_state_dict_pre_hook(check_state)
    vectors = freeze_vectors(model, to_freeze)
    _leave_fused_paths(model)
    share_inputs(model)
    follow_ties(model)
    _record(model, scaffold, place_of, way_of, vectors)
    return _account(model, entries, full)


def _replaced(
    matrices: list[Matrix], place_of: dict[str, str], attentions: dict[str, nn.MultiheadAttention]
) -> dict[str, nn.Parameter]:
    """The parameters that are replaced, by name: matrices, and what attentions to split have of others."""
    found = {m.name: m.parameter for m in matrices if place_of[m.name] != "keep"}
    for layer, attention in attentions.items():
        found |= {dotted(layer, name): parameter for name, parameter in copied(attention).items()}
    return found


def _convert_all(
    model: nn.Module,
    place_of: dict[str, str],
    way_of: dict[str, str | None],
    scaffold: Scaffold,
    drawn: bool,
) -> list[Entry]:
    """Convert the owners of every matrix according to its place, and return the entries."""
    streams = stream_names(model)
    entries: list[Entry] = []
    composed: Composed = {}
    for matrix in find_matrices(model):
        place, way = place_of[matrix.name], way_of[matrix.name]
        if place == "keep":
            entries.append(kept(matrix))
        else:
            own = scaffold.of(matrix.names)
            entries.append(_convert(matrix, place, way, own, drawn, composed, streams))
    for owner, weights in composed.values():
        compose_weights(owner, weights)
    return entries


def _record(
    model: nn.Module,
    scaffold: Scaffold,
    place_of: dict[str, str],
    way_of: dict[str, str | None],
    vectors: list[str],
) -> None:
    """Tell every layer of ours how its model was wrapped."""
    adapt, keep, freeze = (
        [name for name, each in place_of.items() if each == place] for place in ("adapt", "keep", "freeze")
    )
    composed = [name for name in (*adapt, *freeze) if way_of[name] == "compose"]
    wrapping = Wrapping(scaffold, tuple(adapt), tuple(keep), (*freeze, *vectors), tuple(composed))
    for module in model.modules():
        if isinstance(module, Frozen):
            module.wrapping = wrapping


def _account(model: nn.Module, entries: list[Entry], full: int) -> Account:
    """The account of a model that had `full` parameters before its matrices were converted."""
    vectors = trained_numbers(model) - sum(entry.trained for entry in entries)
    replaced = sum(entry.frozen or entry.trained for entry in entries)
    return Account(tuple(entries), vectors, full - replaced - vectors, full)


Composed = dict[int, tuple[nn.Module, dict[str, LottaWeight]]]  # by the owner's id


def _way(matrix: Matrix, place: str, composes: bool) -> str | None:
    """How a matrix can be adapted or frozen: "attention", "layer" or "compose"; None if it cannot."""
    kinds, owners = matrix.kinds, matrix.owners
    if any(type(o.module) is nn.MultiheadAttention for o in owners):
        return "attention" if len(owners) == 1 and owners[0].known else None
    if kinds <= LAYERS and len(kinds) == 1:
        return "layer"
    if place == "freeze" and kinds <= {"linear", "embedding"} and _is_one_table(owners):
        return "layer"  # both read the weight as (out, in)
    return "compose" if composes else None


def _is_one_table(owners: list[Owner]) -> bool:
    """Whether all embeddings among the owners look up the rows of one table as they are."""
    embeddings = [cast(nn.Embedding, owner.module) for owner in owners if owner.kind == "embedding"]
    paddings = {each.padding_idx for each in embeddings} - {None}
    return len(paddings) < 2 and all(each.max_norm is None for each in embeddings)


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
    layout = Layout.of(first.module, matrix.value) if way == "compose" else None
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
        holders.append(_become(owner.module, layer))
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


def _leave_fused_paths(model: nn.Module) -> None:
    """Make PyTorch's encoders call their layers.

    Their fused path reads the weights and would skip the layers' optional parts. Nested tensors are for that
    path only.
    """
    for module in model.modules():
        if not any(isinstance(inner, LottaLayer) for inner in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            change(module, "activation_relu_or_gelu", 0)  # "another activation"; only that path reads it
        if isinstance(module, nn.TransformerEncoder):
            change(module, "use_nested_tensor", False)


def _become(module: nn.Module, other: Other) -> Other:
    """Turn a module into another one in place, and return it; it keeps its hooks and the training flag.

    Replacing it in its parent instead would not work for a root module, and references from elsewhere (a
    module used twice, held in a list or a closure) would still point at the old one.
    """
    other.train(module.training)
    before = Replaced.of(module)
    module.__class__ = type(other)
    module.__dict__ = before.carried_into(other)
    module.__dict__["replaced"] = before
    return cast(Other, module)
