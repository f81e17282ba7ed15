"""The checks that `wrap` makes of each `nn.MultiheadAttention` before it splits it into projections."""

from torch import nn

from lottalora.scaffold.layers.kinds import calls_otherwise
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import dotted

COPIED = ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def attentions_to_split(
    matrices: list[Matrix], place_of: dict[str, str], way_of: dict[str, str | None]
) -> dict[str, nn.MultiheadAttention]:
    """The attentions of which a packed projection is not kept, by name.

    Args:
        matrices: all matrices of the model.
        place_of: "keep", "freeze" or "adapt", by the matrix's name.
        way_of: how the matrix can be adapted or frozen, by its name.
    """
    found: dict[str, nn.MultiheadAttention] = {}
    for matrix in matrices:
        owner = matrix.owners[0]
        if place_of[matrix.name] != "keep" and way_of[matrix.name] == "attention":
            assert isinstance(owner.module, nn.MultiheadAttention), "the way says so"
            found[owner.layer] = owner.module
    return found


def refuse_what_cannot_be_split(model: nn.Module, attentions: dict[str, nn.MultiheadAttention]) -> None:
    """Refuse to split an attention whose tensors others hold too, or whose out_proj is no plain layer.

    Args:
        model: the model that contains them.
        attentions: those to split, by name.

    Raises:
        ValueError: there is one.
    """
    for name, attention in attentions.items():
        reason = _changed(attention) or _shared(model, attention)
        if reason:
            which = f"Attention {name!r}" if name else "The model"
            raise ValueError(
                f"{which} cannot be split into its projections: {reason}. Undo that before wrap, "
                f"or keep=[{dotted(name, '*')!r}]."
            )


def copied(attention: nn.MultiheadAttention) -> dict[str, nn.Parameter]:
    """The parameters of an attention that its projections copy, by name."""
    own = {name: attention._parameters.get(name) for name in COPIED}
    own["out_proj.weight"] = attention.out_proj._parameters.get("weight")
    return {name: parameter for name, parameter in own.items() if parameter is not None}


def _changed(attention: nn.MultiheadAttention) -> str | None:
    """What was done to an attention that its projections would lose; None if nothing was."""
    if calls_otherwise(attention):
        return "its forward is another one than that of its class"
    if "in_proj_bias" in vars(attention):  # a plain attribute then
        return "its in_proj_bias is pruned"
    out = attention.out_proj
    own = out._parameters.keys() | out._modules.keys() | out._buffers.keys()
    if "weight" not in out._parameters or not own <= {"weight", "bias"}:
        return f"its out_proj is not one plain weight and bias, but holds {', '.join(sorted(own))}"
    return None


def _shared(model: nn.Module, attention: nn.MultiheadAttention) -> str | None:
    """What of an attention another module holds too; None if nothing is."""
    out = attention.out_proj
    names = {id(parameter): name for name, parameter in copied(attention).items()}
    for name, module in model.named_modules():
        for child, held in module._modules.items():
            if held is out and module is not attention:
                return f"its out_proj is also {dotted(name, child)}"
        for tensor, value in module._parameters.items():
            if id(value) in names and module is not attention and module is not out:
                return f"its {names[id(value)]} is also {dotted(name, tensor)}"
    return None
