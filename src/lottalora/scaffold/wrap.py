"""Putting a model on a scaffold: every matrix adapted, frozen or kept, and none forgotten."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold import convolution
from lottalora.scaffold.account import Account
from lottalora.scaffold.account import Entry
from lottalora.scaffold.account import kept
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.attention import SplitAttention
from lottalora.scaffold.backbone import check_state
from lottalora.scaffold.draw import Source
from lottalora.scaffold.draw import draw
from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.frozen import mark
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.layers import LottaLinear
from lottalora.scaffold.matrices import Matrix
from lottalora.scaffold.matrices import Places
from lottalora.scaffold.matrices import as_matrix
from lottalora.scaffold.matrices import dotted
from lottalora.scaffold.matrices import find_matrices
from lottalora.scaffold.matrices import kind_of
from lottalora.scaffold.replaced import Replaced
from lottalora.scaffold.streams import stream_names

CONVOLUTIONS = (convolution.LottaConv1d, convolution.LottaConv2d, convolution.LottaConv3d)
FROZEN = Adapter(rank=0, train_beta=False)  # h = W_seed x + b, nothing trained


def wrap(
    model: nn.Module,
    scaffold: Scaffold,
    *,
    keep: Sequence[str] = (),
    freeze: Sequence[str] = (),
    drawn: bool = True,
) -> Account:
    r"""Replace the weight matrices of a model, in place, by frozen random ones with trained adapters.

    .. math:: W x + b \;\to\; \beta W_{seed}\, x + s\, B A x + b

    A matrix is any parameter of two or more axes. It is adapted unless a shell pattern over its dotted name,
    or over a module that it lies in, says otherwise. Vectors (biases, norms) stay trained, but for the biases
    that `scaffold.bias` freezes and those of frozen matrices; a vector that `freeze` names keeps its value
    and becomes a buffer.

    Afterwards `model.parameters()` is what is trained, and `model.state_dict()` holds no scaffold. Modules
    are changed where they are, not exchanged, so a module used twice, a root module and references held
    elsewhere all follow. On the meta device nothing is drawn until `materialize`. If wrap refuses, the model
    is as it was.

    Args:
        model: any module of linear layers, convolutions, attention; also Hugging Face's Conv1D and PyG's
            Linear.
        scaffold: rank, α, family, backbone seed and the options.
        keep: what stays dense and trained, for example ["head"].
        freeze: what becomes random and frozen without an adapter, for example ["*.mlp.*"]; may name
            embeddings.
        drawn: False leaves W_seed as it lies in memory, for `shard`, which draws the rows of one process.

    Returns:
        The account of every parameter.

    Raises:
        ValueError: a matrix that cannot be adapted and is not named; a pattern that matches nothing; one
            weight named in both; an option that a layer cannot have; a model that was wrapped already.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "What is made under torch.inference_mode() cannot be trained: call wrap outside of it "
            "(torch.no_grad() is fine)."
        )
    if any(isinstance(module, LottaLayer | FrozenEmbedding) for module in model.modules()):
        raise ValueError("This model is on a scaffold already: wrap a fresh one, or call set_backbone_seed.")
    places = Places(_patterns("keep", keep), _patterns("freeze", freeze))
    matrices = find_matrices(model)
    names = [name for matrix in matrices for name in matrix.names]
    names += [name for name, _ in model.named_parameters(remove_duplicate=False)]
    places.check(names, (name for name, _ in model.named_modules()))
    place_of = {name: places.of(matrix.names) for matrix in matrices for name in matrix.names}
    _refuse_what_cannot_be(matrices, place_of, scaffold)

    full = sum(p.numel() for p in model.parameters())
    for attention in [
        owner for matrix in matrices for _, owner in matrix.owners if place_of[matrix.name] != "keep"
    ]:
        if type(attention) is nn.MultiheadAttention:
            _become(attention, SplitAttention(attention))
    streams = stream_names(model)
    entries = tuple(
        _convert(matrix, place_of[matrix.name], scaffold, drawn, streams) for matrix in find_matrices(model)
    )
    model.register_load_state_dict_pre_hook(check_state)
    _freeze_vectors(model, places)
    trained = sum(p.numel() for p in model.parameters())
    inside = sum(entry.trained for entry in entries)
    replaced = sum(entry.frozen or entry.trained for entry in entries)
    return Account(entries, trained - inside, full - replaced - (trained - inside), full)


def _patterns(kind: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if isinstance(patterns, str):
        raise ValueError(
            f"{kind} takes a list of patterns, got the text {patterns!r}: write {kind}=[{patterns!r}]."
        )
    return tuple(patterns)


def _refuse_what_cannot_be(matrices: list[Matrix], place_of: dict[str, str], scaffold: Scaffold) -> None:
    left = [m.name for m in matrices if place_of[m.name] != "keep" and not _can_be(m, place_of[m.name])]
    if left:
        weights = (
            f"{len(left)} weight{'s'[: len(left) > 1]} would still be trained densely: {', '.join(left)}"
        )
        raise ValueError(
            f"{weights}. Name each in keep=, or build it from nn.Linear (embeddings: keep= or freeze=)."
        )
    adapted = [m for m in matrices if place_of[m.name] == "adapt"]
    if not adapted and not any(place == "freeze" for place in place_of.values()):
        raise ValueError("No weight is left to adapt: keep= covers all of them.")
    if scaffold.dora and scaffold.family == "zeros" and scaffold.B_init == "zeros":
        raise ValueError(
            "dora has no direction to start from if W_seed and B are both 0: use B_init='kaiming'."
        )


def _can_be(matrix: Matrix, place: str) -> bool:
    """Whether all owners of a matrix can be adapted, or frozen."""
    if any(type(owner) is nn.MultiheadAttention for _, owner in matrix.owners):
        return len(matrix.owners) == 1 and SplitAttention.can_split(matrix.owners[0][1])
    if any(not name.endswith("weight") or name.endswith("_weight") for name in matrix.names):
        return False
    kinds = {kind_of(owner) for _, owner in matrix.owners}
    if place == "freeze":
        return kinds <= {"linear", "transposed", "convolution"} or kinds <= {"linear", "embedding"}
    return len(kinds) == 1 and kinds <= {"linear", "transposed", "convolution"}


def _convert(matrix: Matrix, place: str, scaffold: Scaffold, drawn: bool, streams: dict[str, str]) -> Entry:
    """Change the owners of one matrix into what their place says; tied ones share W_seed, A, B and β."""
    if place == "keep":
        return kept(matrix)
    layer, first = matrix.owners[0]
    shape = tuple(matrix.value.shape)
    source = _source(streams[layer], first, scaffold)
    W_seed = as_matrix(first).detach().clone() if source is None else _frozen(source, matrix.value, drawn)
    adapter = _adapter_for(first, scaffold) if place == "adapt" else FROZEN
    frozen_bias = place == "freeze" or scaffold.bias == "frozen"
    for _, owner in matrix.owners:
        _become(owner, _replacement(owner, W_seed, adapter, source, frozen_bias))
    for _, owner in matrix.owners[1:]:
        for name in ("A", "B", "beta", "magnitude"):
            if hasattr(first, name):
                setattr(owner, name, getattr(first, name))
    own = {id(p): p.numel() for _, o in matrix.owners for n, p in o.named_parameters() if n != "bias"}
    note = _note(matrix, W_seed, adapter, scaffold) if place == "adapt" else ""
    rank = adapter.rank if place == "adapt" else None
    return Entry(matrix.name, shape, place, rank, sum(own.values()), matrix.value.numel(), note)


def _source(layer: str, module: nn.Module, scaffold: Scaffold) -> Source | None:
    """Where the weight of one layer comes from; None if it stays what it is."""
    if scaffold.family == LEARNED:
        return None
    shape = tuple(as_matrix(module).shape)
    return Source(scaffold.seed, layer, shape, scaffold.family, dict(scaffold.parameters))


def _frozen(source: Source, like: Tensor, drawn: bool) -> Tensor:
    if like.is_meta or not drawn:
        return torch.empty(source.shape, dtype=like.dtype, device=like.device)
    return mark(draw(source, dtype=like.dtype).to(like.device), source)


def _adapter_for(module: nn.Module, scaffold: Scaffold) -> Adapter:
    """The adapter of one layer: without the residual skip where the layer changes the shape."""
    if not scaffold.residual or _keeps_shape(module):
        return scaffold
    return replace(scaffold, residual=False)


def _keeps_shape(module: nn.Module) -> bool:
    if kind_of(module) == "convolution":
        return convolution.keeps_shape(module)
    out, columns = as_matrix(module).shape
    return out == columns


def _replacement(
    module: nn.Module, W_seed: Tensor, adapter: Adapter, source: Source | None, frozen_bias: bool
) -> nn.Module:
    if kind_of(module) == "embedding":
        return FrozenEmbedding(W_seed, source, module)
    bias = module.bias
    if bias is not None and frozen_bias:
        bias = bias.detach()
    if kind_of(module) != "convolution":
        return LottaLinear(W_seed, adapter, bias=bias, source=source)
    layer = CONVOLUTIONS[len(module.kernel_size) - 1]
    return layer(W_seed, adapter, like=module, bias=bias, source=source)


def _note(matrix: Matrix, W_seed: Tensor, adapter: Adapter, scaffold: Scaffold) -> str:
    notes = []
    if adapter.rank > min(W_seed.shape):
        notes.append(f"rank over min(out, in) = {min(W_seed.shape)}")
    if scaffold.residual and not adapter.residual:
        notes.append("no residual: the shape changes")
    if len(matrix.owners) > 1:
        notes.append(f"tied: {', '.join(matrix.names[1:])}")
    return "; ".join(notes)


def _freeze_vectors(model: nn.Module, places: Places) -> None:
    """Turn the vectors that `freeze` names into buffers; they keep their value, which no seed gives back."""
    for layer, module in list(model.named_modules()):
        for name, value in list(module.named_parameters(recurse=False)):
            if (
                value.dim() < 2
                and not isinstance(module, LottaLayer)
                and places.of([dotted(layer, name)]) == "freeze"
            ):
                delattr(module, name)
                module.register_buffer(name, value.detach())


def _become(module: nn.Module, other: nn.Module) -> None:
    """Turn a module into another where it stands; hooks, the training flag and what was put on it stay.

    This, and not an exchange in the parent, is what lets a root module be wrapped, and what keeps every
    reference to a module (used twice, held in a list or a closure) pointing at the one that is trained.
    """
    other.train(module.training)
    before = Replaced.of(module)
    module.__class__ = type(other)
    module.__dict__ = before.carried_into(other)
    module.replaced = before
