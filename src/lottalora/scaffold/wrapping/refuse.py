"""The checks that `wrap` makes before it changes anything; the message has the argument to paste."""

import difflib
import fnmatch
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.layers.kinds import calls_otherwise
from lottalora.scaffold.wrapping.matrices import Matrix
from lottalora.scaffold.wrapping.matrices import Owner
from lottalora.scaffold.wrapping.places import in_one_line
from lottalora.scaffold.wrapping.places import shown

PARALLEL = ("DistributedDataParallel", "FullyShardedDataParallel")
OURS = {"A", "B", "beta", "magnitude", "W_seed", "identity", "norm"}  # in a layer of ours
NAMES = 4  # weights of one class that a message names


def refuse_what_is_no_model(model: object, scaffold: object) -> None:
    """Refuse arguments of `wrap` that are of another kind.

    Raises:
        ValueError: they are.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"wrap takes a model, an nn.Module, got {in_one_line(model)}.")
    if not isinstance(scaffold, Scaffold):
        raise ValueError(f"wrap takes a Scaffold, for example Scaffold(rank=8), got {in_one_line(scaffold)}.")


def refuse_what_cannot_be(
    matrices: list[Matrix],
    place_of: dict[str, str],
    way_of: dict[str, str | None],
    scaffold: Scaffold,
    scaffold_of: Mapping[str, Scaffold],
) -> None:
    """Refuse to wrap a model if a matrix would stay dense by accident or nothing would be adapted.

    Args:
        matrices: all matrices of the model.
        place_of: "keep", "freeze" or "adapt", by the matrix's name.
        way_of: how the matrix can be adapted or frozen, by its name; None if it cannot.
        scaffold: the settings.
        scaffold_of: the settings of a matrix, by its name.

    Raises:
        ValueError: a matrix that is not kept cannot be adapted or frozen, is empty or of another dtype, or
            its layer has a tensor with a name of ours, or sparse gradients; there is no matrix, or every
            one is kept; a complex one would have dropout or a normalisation; or DoRA would start from W = 0.
    """
    for matrix in matrices:
        place = place_of[matrix.name]
        reason = None if place == "keep" else _obstacle(matrix)
        if place == "adapt" and any(map(_is_sparse_bag, matrix.owners)):
            reason = "is in an EmbeddingBag with sparse=True, and a computed weight takes no sparse gradients"
        if reason:
            raise ValueError(f"{matrix.name} {reason}: name it in keep=.")
    left = [m for m in matrices if place_of[m.name] != "keep" and way_of[m.name] is None]
    if left:
        raise ValueError(_left_dense(left))
    if not matrices:
        raise ValueError("This model has no weight matrix, so there is nothing to adapt.")
    if all(place == "keep" for place in place_of.values()):
        raise ValueError("No weight is left to adapt: keep= covers all of them.")
    for matrix in matrices:
        in_a_layer = way_of[matrix.name] != "compose" or "linear" in matrix.kinds  # one that is tied to it
        option = _real_option(matrix, scaffold_of[matrix.name])
        if option and in_a_layer and place_of[matrix.name] == "adapt":
            dtype = str(matrix.value.dtype).removeprefix("torch.")
            raise ValueError(
                f"{option} is for real numbers, and {matrix.name} is {dtype}: leave out {option}, or name "
                "the matrix in keep=."
            )
    if scaffold.dora and scaffold.family == "zeros" and scaffold.B_init == "zeros":
        raise ValueError(
            "dora has no direction to start from if W_seed and B are both 0: use B_init='kaiming'."
        )


def refuse_unused_ranks(adapted: Sequence[Sequence[str]], scaffold: Scaffold, known: Collection[str]) -> None:
    """Refuse a key of `scaffold.ranks` that no adapted matrix has.

    Args:
        adapted: all names of each adapted matrix.
        scaffold: the settings.
        known: the names of all matrices.

    Raises:
        ValueError: a key matches none.
    """
    names = [name for each in adapted for name in each]
    for pattern in scaffold.ranks:
        if pattern not in names and (pattern in known or not fnmatch.filter(names, pattern)):
            near = difflib.get_close_matches(pattern, names, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"ranks: {pattern!r} matches no adapted matrix.{meant}")


def _real_option(matrix: Matrix, scaffold: Scaffold) -> str | None:
    """An option that PyTorch does not compute with a matrix's complex numbers; None if there is none."""
    if not matrix.value.is_complex():
        return None
    if scaffold.layer_norm:
        return "layer_norm"
    return "dropout" if scaffold.dropout and scaffold.rank else None


def _obstacle(matrix: Matrix) -> str | None:
    """Why a matrix cannot be adapted or frozen, whatever holds it; None if it can."""
    value = matrix.value
    if 0 in value.shape:
        return f"has no entries, shape {' × '.join(map(str, value.shape))}"
    if not (value.is_complex() or value.dtype in DTYPES.values()):
        return f"is {str(value.dtype).removeprefix('torch.')}, and a scaffold is one of {', '.join(DTYPES)}"
    for owner in matrix.owners:
        if isinstance(owner.module, torch.jit.ScriptModule):
            return "is in a scripted or traced module, which cannot be changed"
        taken = OURS & (owner.module._parameters.keys() | owner.module._buffers.keys())
        if taken and owner.kind is not None:
            return f"stands beside a tensor {min(taken)!r} of its layer, a name that a scaffold layer needs"
    return None


def _is_sparse_bag(owner: Owner) -> bool:
    return isinstance(owner.module, nn.EmbeddingBag) and owner.module.sparse


def refuse_computed_biases(matrices: list[Matrix], place_of: dict[str, str]) -> None:
    """Refuse a layer whose bias is computed, by pruning or a parametrization: one of ours would read it once.

    Args:
        matrices: all matrices of the model.
        place_of: "keep", "freeze" or "adapt", by the matrix's name.

    Raises:
        ValueError: there is one.
    """
    for matrix in matrices:
        layers = [owner.module for owner in matrix.owners if owner.kind is not None]
        if place_of[matrix.name] != "keep" and any(map(_computes_its_bias, layers)):
            raise ValueError(
                f"{matrix.name} stands beside a bias that is pruned or parametrized, which a scaffold layer "
                "cannot follow: undo that before wrap, or name it in keep=."
            )


def _computes_its_bias(layer: nn.Module) -> bool:
    pruned = isinstance(vars(layer).get("bias"), Tensor)  # a plain attribute then
    return pruned or is_parametrized(layer, "bias")


def refuse_parallel(model: nn.Module) -> None:
    """Refuse a model whose parameters DDP or FSDP has registered, since it would not see the adapters.

    Raises:
        ValueError: it has.
    """
    for name, module in model.named_modules():
        shared_out = any(
            is_shared_out(parameter) for parameter in module._parameters.values() if parameter is not None
        )
        found = "fully_shard" if shared_out else type(module).__name__
        if shared_out or found in PARALLEL:
            raise ValueError(
                f"{name or 'The model'!r} is in {found} already, which knows the parameters that it has now: "
                f"call wrap before {found}."
            )


def _left_dense(left: list[Matrix]) -> str:
    """The message about weights that cannot be adapted, grouped by the class that holds them."""
    groups: dict[type, list[Matrix]] = {}
    for matrix in left:
        groups.setdefault(type(matrix.owners[0].module), []).append(matrix)
    paste: dict[str, list[str]] = {"compose": [], "keep": []}
    texts = []
    for cls, matrices in groups.items():
        names = [matrix.name for matrix in matrices]
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        own = any(calls_otherwise(owner.module) for matrix in matrices for owner in matrix.owners)
        holder = f"{cls.__name__}{', with a forward or __call__ of its own' * own}"
        texts.append(f"{', '.join(names[:NAMES])}{more} ({holder})")
        embeddings = all("embedding" in matrix.kinds for matrix in matrices)
        argument = paste["keep" if embeddings else "compose"]
        shorts = [shown(cls)] if cls.__module__.startswith("torch.nn.modules") else _numbers_as_stars(names)
        argument += [short for short in shorts if short not in argument]
    arguments = ", ".join(f"{name}=[{', '.join(given)}]" for name, given in paste.items() if given)
    return (
        f"{len(left)} weight{'s'[: len(left) > 1]} would still be trained densely: {'; '.join(texts)}. "
        f"Name each in keep= or compose=, for example {arguments}. Embeddings can also be named in freeze=."
    )


def _numbers_as_stars(names: list[str]) -> list[str]:
    """Merge names that differ in numbers: "blocks.0.w" and "blocks.1.w" become "blocks.*.w"."""
    starred = (".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names)
    return [repr(name) for name in dict.fromkeys(starred)]
