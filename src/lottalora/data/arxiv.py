"""OGB's ogbn-arxiv: one graph of papers that cite each other, held whole in memory.

Letters: N papers, E citations, F = 128 features, n papers of one part.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.graph import Adjacency
from lottalora.data.batches.graph import Nodes
from lottalora.data.sources.memory import retain_freed_memory
from lottalora.data.sources.ogb import PARTS
from lottalora.data.sources.ogb import Archive
from lottalora.data.sources.ogb import Table
from lottalora.data.sources.ogb import digest_of
from lottalora.data.sources.ogb import read_parts
from lottalora.data.sources.parsed import Arrays
from lottalora.data.sources.structural_features import structural_features
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

PAPERS, CITATIONS, FEATURES, SUBJECTS = 169_343, 1_166_243, 128, 40
VERSION = 1  # of the parsed arrays; raised when reading changes them
ARCHIVE = Archive(
    title="ogbn-arxiv",
    folder="ogbn_arxiv",
    url="http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip",
    tables=("edge", "node-feat", "node-label", "num-node-list", "num-edge-list"),
    split="time",
)
KINDS = ("official", "structural")
FEATURE_FILE = "raw/node-feat.csv.gz"
# First and last three features of the first three papers, as printed in many places; averaged word vectors.
OFFICIAL = [
    [-0.0579, -0.0525, -0.0726, 0.1734, -0.1728, -0.1401],
    [-0.1245, -0.0707, -0.3252, 0.0685, -0.3721, -0.3010],
    [-0.0802, -0.0233, -0.1838, 0.1099, 0.1176, -0.1399],
]


class Arxiv:
    """The subject of computer-science papers, 40 of them, from features and citations: 169,343 papers, split
    by year into 90,941 / 29,799 / 48,603. Citations count in both directions.

    The features are OGB's own, averaged word vectors of title and abstract, which are recognised by their
    values, or are made here from the citations alone (`structural_features`). Scores with these are
    comparable with each other, never with published ones.

    Source: Hu et al. 2020, https://arxiv.org/abs/2005.00687, https://ogb.stanford.edu/docs/nodeprop

    Args:
        root: folder that holds ogbn_arxiv as OGB lays it out.
        features: official or structural.
        batch_size: 1, the whole graph.
        sample: a made graph of 600 papers in place of the real data.
    """

    spec = DataSpec(
        in_shape=(FEATURES,), out_dim=SUBJECTS, metric="accuracy", higher_is_better=True, chance=1 / SUBJECTS
    )
    train_examples = 90_941

    def __init__(
        self, *, root: str, batch_size: int = 1, features: str = "official", sample: bool = False
    ) -> None:
        if features not in KINDS:
            raise ValueError(f"Unknown data.features {features!r}. Known: {', '.join(KINDS)}.")
        if batch_size != 1:
            raise ValueError(f"data.batch_size must be 1, the whole graph, got {batch_size!r}.")
        self.root = Path(root)
        self.features = features
        self.sample = checked_sample(sample)

    def read(self) -> "GraphSplits":
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        retain_freed_memory()  # the tensors of an epoch have 173 MB each
        parsed = made_papers() if self.sample else ARCHIVE.read(self.root, VERSION, parse)
        if self.features == "structural":
            parsed["features"] = structural_features(parsed["edges"], len(parsed["labels"]), FEATURES)
        elif not self.sample:
            check_official(parsed["features"], self.root / ARCHIVE.folder / FEATURE_FILE)
        return GraphSplits.of(parsed)


@dataclass(frozen=True, kw_only=True)
class GraphSplits:
    """Three parts of the papers of one graph; every part sees the whole graph.

    Args:
        adjacency: Â.
        smoothed: Â X, (N, F), which is what a first graph convolution makes of the features X.
        labels: (N,).
        parts: the papers of each part by name.
        digest: SHA-256 of all arrays as they were read.
    """

    adjacency: Adjacency
    smoothed: Tensor
    labels: Tensor
    parts: dict[str, Tensor]
    digest: str

    @classmethod
    def of(cls, parsed: Arrays) -> "GraphSplits":
        adjacency = Adjacency.of(torch.from_numpy(parsed["edges"]), len(parsed["labels"]))
        return cls(
            adjacency=adjacency,
            smoothed=adjacency.smooth(torch.from_numpy(parsed["features"])),
            labels=torch.from_numpy(parsed["labels"]),
            parts={part: torch.from_numpy(parsed[part]) for part in PARTS},
            digest=digest_of(parsed),
        )

    def train_batches(self, seed: int) -> "WholeGraph":
        return self.batch_of("train", seed)

    def validation_batches(self) -> "WholeGraph":
        return self.batch_of("valid")

    def test_batches(self) -> "WholeGraph":
        return self.batch_of("test")

    def batch_of(self, part: str, seed: int | None = None) -> "WholeGraph":
        chosen = self.parts[part]
        nodes = Nodes(self.smoothed, self.adjacency, chosen)
        return WholeGraph(nodes, self.labels[chosen], seed)

    def fingerprint(self) -> str:
        return self.digest


class WholeGraph(order.Batches):
    """One batch: the whole graph, of which one part is asked for.

    Args:
        nodes: graph and part.
        labels: of the part, (n,).
        seed: of the order, of which one batch has none.
    """

    def __init__(self, nodes: Nodes, labels: Tensor, seed: int | None) -> None:
        super().__init__(1, batch_size=1, seed=seed)
        self.nodes, self.labels = nodes, labels

    def batch(self, number: int, index: Tensor) -> tuple[Nodes, Tensor]:
        return self.nodes, self.labels


def parse(tables: dict[str, Table]) -> Arrays:
    """features (N, F), edges (2, E), labels (N,), and the papers of each part."""
    papers = tables["num-node-list"].read(np.int64, columns=1, rows=1).item()
    citations = tables["num-edge-list"].read(np.int64, columns=1, rows=1).item()
    if (papers, citations) != (PAPERS, CITATIONS):
        raise tables["num-node-list"].damaged(
            f"a graph of {papers:,} papers and {citations:,} citations, not of {PAPERS:,} and {CITATIONS:,}"
        )
    edges = tables["edge"].read(np.int64, columns=2, rows=citations)
    labels = tables["node-label"].read(np.int64, columns=1, rows=papers)
    return {
        "features": tables["node-feat"].read(np.float32, columns=FEATURES, rows=papers),
        "edges": np.ascontiguousarray(tables["edge"].within(edges, papers, "paper").T),
        "labels": tables["node-label"].within(labels, SUBJECTS, "label")[:, 0],
        **read_parts(tables, papers, "paper"),
    }


def check_official(features: np.ndarray, path: Path) -> None:
    """Refuse features that are not OGB's own; a ValueError says so."""
    if not are_official(features):
        raise ValueError(
            f"{path} holds other features than OGB's own: the first rows are not the published ones. Delete "
            "it and run again to download it anew, or type data.features=structural for features that are "
            "made from the citations."
        )


def are_official(features: np.ndarray) -> bool:
    """Whether the first papers have the published values, to the four decimals in which they are printed."""
    return np.allclose(features[:3][:, [0, 1, 2, -3, -2, -1]], OFFICIAL, rtol=0, atol=6e-5)


def official_in(folder: Path) -> bool:
    """As `are_official`, from the first papers of the file; a ValueError names one that is damaged."""
    import pandas

    path = folder / FEATURE_FILE
    first = pandas.read_csv(path, header=None, nrows=3, dtype=np.float32).to_numpy()
    if first.shape != (3, FEATURES):
        rows, columns = first.shape
        raise ValueError(f"{path} begins with {rows} rows of {columns} numbers, not 3 of {FEATURES}.")
    return are_official(first)


def made_papers() -> Arrays:
    """The built-in stand-in: 600 papers of four subjects, which cite mostly their own; features of noise with
    the subject faintly in them."""
    random = np.random.RandomState(0)
    labels = random.randint(0, 4, 600)
    citing, cited = random.randint(0, 600, (2, 6000))
    kept = (citing != cited) & ((labels[citing] == labels[cited]) | (random.rand(6000) < 0.2))
    features = random.randn(600, FEATURES)
    features[:, :4] += np.eye(4)[labels]
    order = random.permutation(600)
    return {
        "features": features.astype(np.float32),
        "edges": np.stack([citing[kept], cited[kept]]),
        "labels": labels,
        "train": order[:300],
        "valid": order[300:420],
        "test": order[420:],
    }
