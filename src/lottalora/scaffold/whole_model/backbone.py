"""Functions on all frozen weights of a wrapped model: redraw and verify them, and read β."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.drawing.local_rows import to_local
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.drawing.marks import mark_of
from lottalora.scaffold.drawing.seeds import check_seed
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.agreement import refuse_other_sources
from lottalora.scaffold.wrapping.places import in_one_line


def scaffold_layers(model: nn.Module) -> dict[str, LottaLayer | FrozenEmbedding]:
    """The layers that hold a W_seed, by dotted name, each once.

    Raises:
        ValueError: the model has no such layer, or it is no model.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"A model is wanted, an nn.Module, got {in_one_line(model)}.")
    found = {name: m for name, m in model.named_modules() if isinstance(m, LottaLayer | FrozenEmbedding)}
    if not found:
        raise ValueError("This model has no scaffold: call lottalora.scaffold.wrap first.")
    return found


def set_backbone_seed(model: nn.Module, seed: int) -> None:
    """Redraw every W_seed in place, as `wrap` draws it under this backbone seed. Adapters do not change.

    Of a model that `shard` has distributed, all processes must call it.

    Raises:
        ValueError: the model has no scaffold, or a W_seed that was given, not drawn; or `seed` is not a whole
            number in 0 … 2⁶⁴ − 1, or differs between processes that share the scaffold out. Nothing is
            redrawn then.
    """
    wanted = [(layer, source.with_seed(seed)) for layer, source in _sources(model)]
    _refuse_mixtures(wanted)
    for layer, source in wanted:
        layer.redraw(source)


def resample(model: nn.Module, seed: int, *, held: dict[int, list[Tensor]] | None = None) -> None:
    """Redraw every W_seed in place, as scaffold number `seed` under the model's backbone seed.

    For training over many scaffolds: resample(model, 1), resample(model, 2), … are determined by the backbone
    seed and independent of the backbones of all seeds. `resample(model, 0)` restores the backbone itself.
    Of a model that `shard` has distributed, all processes must call it.

    Args:
        model: a model on a scaffold.
        seed: the number of the scaffold.
        held: scaffolds of this model by number, which are copied and not drawn again; one that it lacks, or
            has of another backbone seed or dtype, is drawn and added; nothing is added inside
            `without_scaffold` and `regenerated`, or on the meta device. For training over few scaffolds,
            where drawing would take as long as a step.

    Raises:
        ValueError: `seed` is not a whole number in 0 … 2⁶⁴ − 1, or differs between processes that share the
            scaffold out; or the model has no scaffold, or a W_seed that was given, not drawn.

    Source: the paper's Meta-LoRA, Table 4.
    """
    check_seed(seed)
    wanted = [(layer, replace(source, redraw=seed)) for layer, source in _sources(model)]
    _refuse_mixtures(wanted)
    known = [] if held is None else held.get(seed, [])
    if len(known) != len(wanted) or not all(map(_is_draw, known, wanted)):
        known = []  # of another backbone seed or dtype
    for place, (layer, source) in enumerate(wanted):
        layer.redraw(source, known[place] if known else None)
    if held is not None and not known and all(_has_draw(layer) for layer, _ in wanted):
        held[seed] = [mark(to_local(layer.W_seed).clone(), source) for layer, source in wanted]


def verify(model: nn.Module) -> list[str]:
    """Compare every W_seed, and its fingerprint, with a new draw.

    This takes about as long as drawing the scaffold. A W_seed that was given is compared with the fingerprint
    that an earlier `state_dict()`, `load_state_dict()` or `verify` stored. With FSDP, each process compares
    its own rows.

    Returns:
        The dotted names of the layers that differ.

    Raises:
        ValueError: the model has no scaffold.
    """
    return [name for name, layer in scaffold_layers(model).items() if layer.differs()]


def _refuse_mixtures(wanted: Sequence[tuple[Frozen, Source]]) -> None:
    """Refuse to redraw a W_seed that is shared out if the processes want different sources."""
    for layer, _ in wanted:
        if is_shared_out(layer.W_seed):  # then all are, over the same processes
            refuse_other_sources([source for _, source in wanted], layer.W_seed.device_mesh)
            return


def _has_draw(layer: Frozen) -> bool:
    """Whether W_seed of a layer that was redrawn has the values that were drawn."""
    return not layer.removed and not layer.W_seed.is_meta


def _is_draw(held: Tensor, wanted: tuple[Frozen, Source]) -> bool:
    """Whether a held draw is that of the source that is wanted, in the layer's dtype."""
    layer, source = wanted
    found = mark_of(held)
    return found is not None and found.source == source and found.dtype is layer.W_seed.dtype


def _sources(model: nn.Module) -> list[tuple[LottaLayer | FrozenEmbedding, Source]]:
    found = []
    for name, layer in scaffold_layers(model).items():
        if layer.source is None:
            raise ValueError(
                f"Layer {name!r} was given its W_seed, so there is no source to draw it from again."
            )
        found.append((layer, layer.source))
    return found


def beta_values(model: nn.Module) -> dict[str, float]:
    """β of each adapted matrix, by the layer's dotted name; empty for a model without a scaffold.

    The matrices of a stack are numbered: "experts.composed_weight[0]".
    """
    values: dict[str, float] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LottaLayer) or layer.beta is None:
            continue
        beta = layer.beta.detach()
        if is_shared_out(beta):
            beta = beta.full_tensor()
        if beta.numel() == 1:
            values[name] = beta.item()
        else:
            values |= {f"{name}[{i}]": each for i, each in enumerate(beta.tolist())}
    return values
