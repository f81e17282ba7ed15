"""The checks of each layer that `wrap` makes before it changes any, so that no conversion fails halfway."""

from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.families.family import distribution_of
from lottalora.scaffold.layers.composed_weight import Layout
from lottalora.scaffold.layers.convolution import convolution_like
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.kinds import as_matrix
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import Owner

OWN = {"adapter", "norm", "source", "replaced", "A", "B", "beta", "magnitude", "W_seed", "identity"}
OWN |= {"_expected", "_fingerprint", "_lost", "_written", "_conv", "_edges"}  # what an instance of ours holds
OF_TORCH = {"weight", "bias", "in_features", "out_features"}  # the same in a layer of ours


def refuse_layers(
    matrices: list[Matrix], place_of: dict[str, str], way_of: dict[str, str | None], scaffold: Scaffold
) -> None:
    """Refuse matrices whose layers cannot become layers of ours, or that have no distribution.

    Args:
        matrices: all matrices of the model.
        place_of: "keep", "freeze" or "adapt", by the matrix's name.
        way_of: "attention", "layer" or "compose", by the matrix's name.
        scaffold: the settings.

    Raises:
        ValueError: there is one; the message names it and says why.
    """
    for matrix in matrices:
        place, way = place_of[matrix.name], way_of[matrix.name]
        if place == "keep":
            continue
        reason = _shrinks(matrix) if place == "adapt" and way == "compose" else None
        for owner in matrix.owners:
            if way == "layer" or owner.kind == "linear":  # a linear layer that is tied to a composed weight
                reason = reason or _taken(owner) or _bias(owner)
        if reason:
            raise ValueError(f"{matrix.name} {reason}: name it in keep=.")
        if scaffold.family != LEARNED:
            _refuse_without_distribution(matrix, way, scaffold)


def _taken(owner: Owner) -> str | None:
    """Why a layer's attributes and children would be lost; None if they are not."""
    module = owner.module
    taken = (vars(module).keys() | module._modules.keys()) & _names_of_ours(owner)
    if not taken:
        return None
    return f"is in a layer with an attribute {min(taken)!r}, a name that a scaffold layer needs"


def _names_of_ours(owner: Owner) -> set[str]:
    """The names that mean something in the layer of ours that an owner becomes, and not in its own class."""
    cls: type[nn.Module]
    if owner.kind == "convolution":
        cls = convolution_like(owner.module)  # type: ignore[arg-type]  # or a class with its attributes
    else:
        cls = FrozenEmbedding if owner.kind == "embedding" else LottaLinear
    same = {"weight", "padding_idx"} if owner.kind == "embedding" else OF_TORCH
    return (OWN | set(dir(cls))) - set(dir(nn.Module)) - same


def _bias(owner: Owner) -> str | None:
    """Why a layer's bias cannot be that of a layer of ours; None if it can."""
    if owner.kind == "embedding":
        return None
    bias, rows = getattr(owner.module, "bias", False), as_matrix(owner.module).shape[0]
    if bias is None or isinstance(bias, Tensor) and bias.shape == (rows,):
        return None
    found = f"of shape {tuple(bias.shape)}" if isinstance(bias, Tensor) else "that is no tensor"
    return f"stands beside a bias {found}, and a scaffold layer needs one of shape ({rows},)"


def _shrinks(matrix: Matrix) -> str | None:
    """Why a tied table cannot be composed: its rows are scaled down for those who look them up alone."""
    lengths = {getattr(owner.module, "max_norm", None) for owner in matrix.owners}
    if len(lengths) < 2:
        return None
    return "is in an embedding with max_norm, which would shorten its rows for the layers tied to it as well"


def _refuse_without_distribution(matrix: Matrix, way: str | None, scaffold: Scaffold) -> None:
    shape = _shape(matrix, way)
    try:
        distribution_of(scaffold.family, shape, scaffold.parameters)
    except Exception as error:  # a registered family may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{matrix.name}: init family {scaffold.family!r} has no distribution for the shape {shape} "
            f"({reason}). Name it in keep=, or choose another family."
        ) from error


def _shape(matrix: Matrix, way: str | None) -> tuple[int, int]:
    """The shape, (out, in), of what is drawn for a matrix; that of one matrix of a stack."""
    first = matrix.owners[0]
    if way == "compose":
        layout = Layout.of(first.reader, matrix.value)
        return layout.matrix[0] // layout.stack, layout.matrix[1]
    rows, columns = (matrix.value if way == "attention" else as_matrix(first.module)).shape
    return rows, columns
