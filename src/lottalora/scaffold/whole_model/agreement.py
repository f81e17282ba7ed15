"""Processes that share out one scaffold must draw it from the same sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from lottalora.scaffold.drawing.draw import Source

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def refuse_other_sources(sources: Iterable[Source | None], mesh: DeviceMesh) -> None:
    """Compare the sources of all layers between the processes of a mesh; all of them must call this.

    Args:
        sources: of every layer, in the model's order; None for a W_seed that was given.
        mesh: the processes, on one axis.

    Raises:
        ValueError: they differ, in every process.
    """
    if mesh.size() == 1:
        return
    ours = hashlib.sha256(str(list(sources)).encode()).digest()
    mine = torch.tensor(list(ours), dtype=torch.uint8, device=mesh.device_type)
    found = [torch.empty_like(mine) for _ in range(mesh.size())]
    torch.distributed.all_gather(found, mine, group=mesh.get_group())
    if any(not torch.equal(each, mine) for each in found):
        raise ValueError(
            "The processes would draw the rows of different scaffolds. Give all of them one model, family "
            "and seed, and to resample one number."
        )
