"""OGB's ogbg-molhiv: molecules held end to end in memory, gathered into batches by index arithmetic.

Letters: N atoms, B bonds and M = 2 B their two directions, G molecules, of all of them or of a batch.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.graph import Molecules
from lottalora.data.sources.memory import retain_freed_memory
from lottalora.data.sources.ogb import PARTS
from lottalora.data.sources.ogb import Archive
from lottalora.data.sources.ogb import Table
from lottalora.data.sources.ogb import digest_of
from lottalora.data.sources.ogb import read_parts
from lottalora.data.sources.parsed import Arrays
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

ATOM = (119, 5, 12, 12, 10, 6, 6, 2, 2)  # values of each feature, as in ogb.utils.features
BOND = (5, 6, 2)
MOLECULES = 41_127
EVALUATION_BATCH = 256  # molecules; the score does not depend on it
VERSION = 1  # of the parsed arrays; raised when reading changes them
ARCHIVE = Archive(
    title="ogbg-molhiv",
    folder="ogbg_molhiv",
    url="http://snap.stanford.edu/ogb/data/graphproppred/csv_mol_download/hiv.zip",
    tables=("edge", "edge-feat", "node-feat", "graph-label", "num-node-list", "num-edge-list"),
    split="scaffold",
)


class MolHIV:
    """Whether a molecule inhibits the replication of HIV: 41,127 molecules, of which 3.5 % do, split by OGB
    into 32,901 / 4,113 / 4,113 so that no part shares its structural frames with another.

    Source: Hu et al. 2020, https://arxiv.org/abs/2005.00687; Wu et al. 2018, MoleculeNet.

    Args:
        root: folder that holds ogbg_molhiv as OGB lays it out.
        batch_size: molecules.
        sample: 400 made molecules in place of the real data.
    """

    spec = DataSpec(in_shape=(len(ATOM),), out_dim=1, metric="rocauc", higher_is_better=True, chance=0.5)
    train_examples = 32_901

    def __init__(self, *, root: str, batch_size: int, sample: bool = False) -> None:
        self.root = Path(root)
        self.batch_size = batch_size
        self.sample = checked_sample(sample)

    def read(self) -> "MoleculeSplits":
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        retain_freed_memory()  # the tensors of a step have 2 to 8 MB each
        parsed = made_molecules() if self.sample else ARCHIVE.read(self.root, VERSION, parse)
        return MoleculeSplits(
            molecules=Flat.of(parsed),
            parts={part: torch.from_numpy(parsed[part]) for part in PARTS},
            batch_size=self.batch_size,
            digest=digest_of(parsed),
        )


@dataclass(frozen=True)
class Flat:
    """All molecules end to end.

    Args:
        atoms: features, (N, 9), bytes.
        bonds: each bond once, from and to an atom of the same molecule counted from 0, (B, 2).
        kinds: features of the bonds, (B, 3), bytes.
        atom_counts, bond_counts: of each molecule, (G,).
        labels: (G,), 0 or 1.
    """

    atoms: Tensor
    bonds: Tensor
    kinds: Tensor
    atom_counts: Tensor
    bond_counts: Tensor
    labels: Tensor

    @classmethod
    def of(cls, parsed: Arrays) -> "Flat":
        return cls(*(torch.from_numpy(parsed[name]) for name in cls.__annotations__))

    def batch(self, index: Tensor) -> tuple[Molecules, Tensor]:
        """The molecules of `index` as one graph, and their labels."""
        sizes = self.atom_counts[index]
        molecule = torch.repeat_interleave(sizes)  # (N,)
        of_bond, bonds = places(self.bond_counts, index)
        first = (sizes.cumsum(0) - sizes)[of_bond]  # number in the batch of the molecule's first atom, (B,)
        ends = (self.bonds[bonds].long() + first[:, None]).T  # (2, B)
        _, atoms = places(self.atom_counts, index)
        kinds = self.kinds[bonds].int()
        x = Molecules(
            self.atoms[atoms].int(),
            torch.cat([ends, ends.flip(0)], dim=1),
            torch.cat([kinds, kinds]),
            molecule,
            sizes,
        )
        return x, self.labels[index]


def places(counts: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Where the items of the molecules of `index` lie end to end: for each item its molecule's place in
    `index`, and its own place among the items of all molecules."""
    chosen = counts[index]
    owner = torch.repeat_interleave(chosen)
    begins = (counts.cumsum(0) - counts)[index]  # in the store
    shift = begins - (chosen.cumsum(0) - chosen)  # from a place in the batch to one in the store
    return owner, torch.arange(len(owner)) + shift[owner]


@dataclass(frozen=True, kw_only=True)
class MoleculeSplits:
    """Train, validation and test part, as numbers of molecules.

    Args:
        molecules: all of them.
        parts: the molecules of each part by name.
        batch_size: of training.
        digest: SHA-256 of all arrays as they were read.
    """

    molecules: Flat
    parts: dict[str, Tensor]
    batch_size: int
    digest: str

    def train_batches(self, seed: int) -> "Batches":
        return Batches(self.molecules, self.parts["train"], batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> "Batches":
        return Batches(self.molecules, self.parts["valid"], batch_size=EVALUATION_BATCH)

    def test_batches(self) -> "Batches":
        return Batches(self.molecules, self.parts["test"], batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        return self.digest


class Batches(order.Batches):
    """Batches of the molecules of one part, in an order that is a function of (seed, epoch).

    Args:
        molecules: all of them.
        part: the numbers of those that are given.
        batch_size: molecules.
        seed: of the order, or None.
    """

    def __init__(self, molecules: Flat, part: Tensor, *, batch_size: int, seed: int | None = None) -> None:
        super().__init__(len(part), batch_size=batch_size, seed=seed)
        self.molecules, self.part = molecules, part

    @property
    def labels(self) -> Tensor:
        """Of the whole part, as it is stored."""
        return self.molecules.labels[self.part]

    def batch(self, number: int, index: Tensor) -> tuple[Molecules, Tensor]:
        return self.molecules.batch(self.part[index])


def parse(tables: dict[str, Table]) -> Arrays:
    """The arrays of `Flat` by name, and the molecules of each part."""
    labels = tables["graph-label"].read(np.int64, columns=1, rows=MOLECULES)
    atom_counts, bond_counts = (
        tables[name].read(np.int64, columns=1, rows=MOLECULES)[:, 0]
        for name in ("num-node-list", "num-edge-list")
    )
    atoms, bonds = int(atom_counts.sum()), int(bond_counts.sum())
    limits = np.repeat(atom_counts, bond_counts)[:, None]  # atoms of the molecule of each bond, (B, 1)
    ends = tables["edge"].read(np.int64, columns=2, rows=bonds)
    features = tables["node-feat"].read(np.int64, columns=len(ATOM), rows=atoms)
    kinds = tables["edge-feat"].read(np.int64, columns=len(BOND), rows=bonds)
    return {
        "atoms": tables["node-feat"].within(features, np.array(ATOM), "feature").astype(np.uint8),
        "bonds": tables["edge"].within(ends, limits, "atom").astype(np.int32),
        "kinds": tables["edge-feat"].within(kinds, np.array(BOND), "feature").astype(np.uint8),
        "atom_counts": atom_counts,
        "bond_counts": bond_counts,
        "labels": tables["graph-label"].within(labels, 2, "label")[:, 0],
        **read_parts(tables, MOLECULES, "molecule"),
    }


def made_molecules() -> Arrays:
    """The built-in stand-in: 400 chains of four to nine atoms; those with many of one element are the rare
    ones that act."""
    random = np.random.RandomState(0)
    atom_counts = random.randint(4, 10, 400)
    labels = (random.rand(400) < 0.25).astype(np.int64)
    atoms = np.stack([random.randint(0, values, atom_counts.sum()) for values in ATOM], axis=1)
    often = random.rand(len(atoms)) < np.where(np.repeat(labels, atom_counts) == 1, 0.6, 0.2)
    atoms[:, 0] = np.where(often, 7, 5)
    along = np.concatenate([np.arange(count - 1) for count in atom_counts])
    kinds = np.stack([random.randint(0, values, len(along)) for values in BOND], axis=1)
    order = random.permutation(400)
    return {
        "atoms": atoms.astype(np.uint8),
        "bonds": np.stack([along, along + 1], axis=1).astype(np.int32),
        "kinds": kinds.astype(np.uint8),
        "atom_counts": atom_counts.astype(np.int64),
        "bond_counts": atom_counts.astype(np.int64) - 1,
        "labels": labels,
        "train": order[:280],
        "valid": order[280:340],
        "test": order[340:],
    }
