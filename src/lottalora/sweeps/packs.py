"""Which cells of a sweep are trained in one process: each alone, or several at once as an ensemble."""

import hashlib
import json
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass

from lottalora.config.ensemble import OWN_AS_TYPED
from lottalora.messages import counted
from lottalora.sweeps.cells import Cell

LARGEST = 32  # members of an ensemble: more are no faster on a core, and all of them end together


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The cells of one process.

    Args:
        cells: the cells.
        name: of the ensemble's folder under RESULTS/runs; "" for a cell alone.
    """

    cells: tuple[Cell, ...]
    name: str = ""


def alone(cells: Sequence[Cell]) -> list[Pack]:
    """A process for each cell."""
    return [Pack(cells=(cell,)) for cell in cells]


def ensembles(cells: Sequence[Cell], todo: Collection[str]) -> list[Pack]:
    """Ensembles of the cells that differ in what is each member's own; what is left, alone.

    Their names come from all cells, those that are done too: so a repeated command finds the checkpoints.

    Args:
        cells: of the whole sweep.
        todo: the digests of those to be run.

    Raises:
        ValueError: no two cells fit together; it names the keys that differ.
    """
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(json.dumps(cell.common, sort_keys=True) if cell.digest else "", []).append(cell)
    broken = kinds.pop("", [])
    if len(kinds) > 1 and all(len(kind) == 1 for kind in kinds.values()):
        raise ValueError(
            f"ensemble=true finds no two cells of one shape: they differ in {', '.join(differing(kinds))}. "
            f"Those of an ensemble differ in {OWN_AS_TYPED} alone. Type ensemble=false."
        )
    packs = [pack_of(part, todo) for kind in kinds.values() for part in parts(kind)]
    return [pack for pack in packs if pack.cells] + alone(broken)


def parts(cells: Sequence[Cell]) -> list[Sequence[Cell]]:
    """Split the cells into as few parts as possible, of nearly equal size, in their order."""
    count = -(-len(cells) // LARGEST)
    size = -(-len(cells) // count)
    return [cells[first : first + size] for first in range(0, len(cells), size)]


def pack_of(cells: Sequence[Cell], todo: Collection[str]) -> Pack:
    """Keep the cells that are still to be run; the pack keeps its name."""
    digests = "".join(sorted(cell.digest for cell in cells))
    name = f"ensemble-{hashlib.sha256(digests.encode()).hexdigest()[:12]}" if len(cells) > 1 else ""
    return Pack(cells=tuple(cell for cell in cells if cell.digest in todo), name=name)


def differing(kinds: Collection[str]) -> list[str]:
    """The keys in which these settings, as JSON, are not all the same."""
    settings = [json.loads(kind) for kind in kinds]
    keys = sorted({key for each in settings for key in each})
    return [key for key in keys if any(each.get(key) != settings[0].get(key) for each in settings)]


def packs_text(packs: Sequence[Pack]) -> str:
    """Say how many ensembles there are, and of how many runs."""
    sizes = [str(len(pack.cells)) for pack in packs if pack.name]
    single = len(packs) - len(sizes)
    ensembles = f"ensembles of {', '.join(sizes)} runs" if sizes else "no ensembles"
    return f"{ensembles}; {counted(single, 'run')} alone"
