"""The rows of a W_seed that this process holds: all of them, unless `shard` has distributed them."""

from typing import TYPE_CHECKING
from typing import TypeGuard
from typing import cast

import torch
from torch import Tensor

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_shared_out(W_seed: Tensor) -> TypeGuard["DTensor"]:
    """Whether other processes hold some rows of W_seed, (out, in), that is, whether it is a DTensor.

    It looks for an attribute, since importing DTensor is slow.
    """
    return hasattr(W_seed, "device_mesh")


def refuse_shared_out(W_seed: Tensor) -> None:
    """Raise ValueError for a W_seed of which this process holds some rows: they are whole in a call alone."""
    if is_shared_out(W_seed):
        raise ValueError(
            "This net reads the weight of a layer whose rows are shared out among processes (fsdp), "
            "in place of calling the layer. Type trainer.strategy=ddp."
        )


def to_local(W_seed: Tensor) -> Tensor:
    """The rows that this process holds, (local rows, in), sharing memory with W_seed."""
    if not is_shared_out(W_seed):
        return W_seed
    return cast("DTensor", W_seed.detach()).to_local()


def shaped_like(own: Tensor, given: Tensor) -> Tensor:
    """One number in the shape of another, () or (1,), and distributed as that is; see `prepare_for_fsdp`."""
    given = given.reshape(own.shape)
    if not is_shared_out(own) or is_shared_out(given):
        return given
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(given.to(own.device_mesh.device_type), own.device_mesh, own.placements)


def rows_of(W_seed: Tensor) -> tuple[int, int]:
    """(first, last + 1) of the rows of W_seed, (out, in), that this process holds.

    FSDP gives each process ⌈rows / processes⌉ of them, and fewer to the last ones.
    """
    if not is_shared_out(W_seed):
        return 0, len(W_seed)
    mesh = W_seed.device_mesh
    most = -(-len(W_seed) // mesh.size())
    first = mesh.get_local_rank() * most
    return min(first, len(W_seed)), min(first + most, len(W_seed))


@torch.no_grad()
def fill(W_seed: Tensor, source: Source) -> None:
    """Draw the rows that this process holds from `source` and write them into W_seed, (out, in)."""
    to_local(W_seed).copy_(draw(source, rows_of(W_seed)))


@torch.no_grad()
def clear_row(W_seed: Tensor, row: int) -> None:
    """Set row number `row` of the whole W_seed, (out, in), to 0 if this process holds it."""
    first, last = rows_of(W_seed)
    if first <= row < last:
        to_local(W_seed)[row - first] = 0
