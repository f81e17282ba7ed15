"""The class that a module has after `wrap`, and whether it can take it."""

from collections.abc import Iterator
from typing import cast

from torch import nn

from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.compose import composed_class
from lottalora.scaffold.layers.convolution import convolution_like
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import Owner


def new_classes(
    matrices: list[Matrix], place_of: dict[str, str], way_of: dict[str, str | None]
) -> Iterator[tuple[Owner, type[nn.Module]]]:
    """Each module that gets another class, with that class.

    Args:
        matrices: all matrices of the model.
        place_of: "keep", "freeze" or "adapt", by the matrix's name.
        way_of: how the matrix can be adapted or frozen, by its name.
    """
    for matrix in matrices:
        if place_of[matrix.name] != "keep":
            for owner in matrix.owners:
                yield owner, _new_class(owner, way_of[matrix.name])


def _new_class(owner: Owner, way: str | None) -> type[nn.Module]:
    if way == "attention":
        return SplitAttention
    if way == "compose" and owner.kind != "linear":
        return composed_class(type(owner.module), (owner.attribute,))
    if owner.kind == "embedding":
        return FrozenEmbedding
    if owner.kind == "convolution":
        return convolution_like(cast(nn.Conv2d, owner.module))
    return LottaLinear


def refuse_fixed_classes(changes: list[tuple[Owner, type[nn.Module]]]) -> None:
    """Refuse modules that cannot become another class in place.

    Args:
        changes: as `new_classes` gives them.

    Raises:
        ValueError: there is one.
    """
    for owner, cls in changes:
        try:
            object.__setattr__(object.__new__(type(owner.module)), "__class__", cls)
        except TypeError as error:
            raise ValueError(
                f"Module {owner.layer!r} ({type(owner.module).__name__}) cannot become another class in "
                f"place ({error}), for example because of __slots__: name it in keep=."
            ) from error
