"""Putting a model on a scaffold: every matrix is adapted, frozen or kept, and all are accounted for."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.how_wrapped import Wrapping
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.replaced import become
from lottalora.scaffold.wrapping.account import Account
from lottalora.scaffold.wrapping.account import Entry
from lottalora.scaffold.wrapping.account import trained_numbers
from lottalora.scaffold.wrapping.asked_classes import refuse_asked_classes
from lottalora.scaffold.wrapping.convert import convert_all
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import Owner
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.matrices import find_matrices
from lottalora.scaffold.wrapping.new_class import new_classes
from lottalora.scaffold.wrapping.new_class import refuse_fixed_classes
from lottalora.scaffold.wrapping.other_holders import refuse_other_holders
from lottalora.scaffold.wrapping.places import Places
from lottalora.scaffold.wrapping.refuse import refuse_computed_biases
from lottalora.scaffold.wrapping.refuse import refuse_parallel
from lottalora.scaffold.wrapping.refuse import refuse_unused_ranks
from lottalora.scaffold.wrapping.refuse import refuse_what_cannot_be
from lottalora.scaffold.wrapping.refuse import refuse_what_is_no_model
from lottalora.scaffold.wrapping.refuse_layers import refuse_layers
from lottalora.scaffold.wrapping.set_aside import change
from lottalora.scaffold.wrapping.siblings import share_inputs
from lottalora.scaffold.wrapping.splittable import attentions_to_split
from lottalora.scaffold.wrapping.splittable import copied
from lottalora.scaffold.wrapping.splittable import refuse_what_cannot_be_split
from lottalora.scaffold.wrapping.state import check_state
from lottalora.scaffold.wrapping.tied_keys import follow_ties
from lottalora.scaffold.wrapping.tied_keys import tie_what_has_no_values
from lottalora.scaffold.wrapping.vectors import freeze_vectors
from lottalora.scaffold.wrapping.vectors import vectors_to_freeze

LAYERS = {"linear", "transposed", "convolution"}  # kinds with a layer of ours


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
    all see the change. On the meta device nothing is drawn until `materialize`. A model that wrap refuses is
    unchanged.

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
            hook, shared memory, a buffer, a list of a module); a module cannot change its class, or a forward
            asks for it; a layer's bias is pruned, parametrized or of another length, or an attribute of it
            has a name of ours; the family has no distribution for a shape; an attention cannot be split; or
            inference mode is on.
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
    known = {name for m in matrices for name in m.names}
    scaffold_of = {m.name: scaffold.of(m.names, known) for m in matrices}
    refuse_what_cannot_be(matrices, place_of, way_of, scaffold, scaffold_of)
    refuse_unused_ranks([m.names for m in matrices if place_of[m.name] == "adapt"], scaffold, known)
    attentions = attentions_to_split(matrices, place_of, way_of)
    refuse_what_cannot_be_split(model, attentions)
    refuse_computed_biases(matrices, place_of)
    refuse_layers(matrices, place_of, way_of, scaffold)
    to_freeze = vectors_to_freeze(model, places, attentions)
    refuse_other_holders(model, _replaced(matrices, place_of, attentions))
    changes = list(new_classes(matrices, place_of, way_of))
    refuse_fixed_classes(changes)
    refuse_asked_classes(model, changes)

    full = sum(p.numel() for p in model.parameters())
    for attention in attentions.values():
        become(attention, SplitAttention(attention))
    entries = convert_all(model, place_of, way_of, scaffold_of, drawn)
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
