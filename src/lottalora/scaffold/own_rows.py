"""The rows of a W_seed that are in this process: all of them, unless `shards` has shared them out."""

import torch
from torch import Tensor

from lottalora.scaffold.draw import Source
from lottalora.scaffold.draw import draw


def is_shared_out(W_seed: Tensor) -> bool:
    """Whether other processes hold the other rows: it is a DTensor, whose module is slow to import."""
    return hasattr(W_seed, "device_mesh")


def own_part(W_seed: Tensor) -> Tensor:
    """The memory of the rows that are here."""
    return W_seed.detach().to_local() if is_shared_out(W_seed) else W_seed


def rows_of(W_seed: Tensor) -> tuple[int, int]:
    """(first, last + 1) of those that are here. FSDP gives each ⌈rows / processes⌉; the last, less."""
    if not is_shared_out(W_seed):
        return 0, len(W_seed)
    mesh = W_seed.device_mesh
    most = -(-len(W_seed) // mesh.size())
    first = mesh.get_local_rank() * most
    return min(first, len(W_seed)), min(first + most, len(W_seed))


@torch.no_grad()
def fill(W_seed: Tensor, source: Source) -> None:
    """Set the rows that are here to what `source` gives; no others are drawn."""
    own_part(W_seed).copy_(draw(source, rows_of(W_seed)))


@torch.no_grad()
def clear_row(W_seed: Tensor, row: int) -> None:
    """Set one row of the whole to 0, if it is here."""
    first, last = rows_of(W_seed)
    if first <= row < last:
        own_part(W_seed)[row - first] = 0
