"""The graph of papers: one convolution that equals PyG's, features under their own name, and broken files."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lottalora.data import arxiv
from lottalora.data.arxiv import ARCHIVE
from lottalora.data.arxiv import FEATURES
from lottalora.data.arxiv import OFFICIAL
from lottalora.data.arxiv import Arxiv
from lottalora.data.arxiv import check_official
from lottalora.data.arxiv import made_papers
from lottalora.data.batches.graph import Adjacency
from lottalora.data.batches.graph import Nodes
from lottalora.data.fingerprint import fingerprint
from lottalora.data.sources.ogb import Table
from lottalora.data.sources.structural_features import structural_features
from lottalora.models.gcn import GCN
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "ogb")
real = [
    pytest.mark.data,
    pytest.mark.skipif(bool(ARCHIVE.missing(ROOT)), reason=f"ogbn-arxiv is not at {ROOT}"),
]
EDGES = torch.tensor([[0, 1, 2, 2, 3, 5, 1], [1, 2, 0, 1, 4, 5, 0]])  # both ways, one loop, node 6 alone


def net_on(rank: int | None) -> GCN:
    """A small net, dense or on a scaffold whose B is not 0."""
    torch.manual_seed(0)
    net = GCN((5,), 3, hidden=8, layers=3, dropout=0.5)
    for conv in net.convs:
        nn.init.normal_(conv.bias)
    if rank:
        wrap(net, Scaffold(rank=rank, B_init="kaiming"), freeze=["convs.*.bias"])
    return net


def graph() -> tuple[torch.Tensor, Nodes]:
    torch.manual_seed(1)
    x, adjacency = torch.randn(7, 5), Adjacency.of(EDGES, 7)
    return x, Nodes(adjacency.smooth(x), adjacency, torch.tensor([6, 1, 0, 3]))


def by_pyg(net: GCN, x: torch.Tensor) -> torch.Tensor:
    """The logits that PyG's own forward gives with the same weights."""
    from torch_geometric.utils import to_undirected

    edges = to_undirected(EDGES)
    for norm, conv in zip(net.norms, net.convs, strict=False):
        x = F.relu(norm(conv(x, edges)))
    return net.convs[-1](x, edges)[[6, 1, 0, 3]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rank", [None, 2])
def test_logits_and_gradients_are_those_of_pygs_convolution(rank, training):
    net, (x, nodes), label = net_on(rank).train(training), graph(), torch.tensor([0, 1, 2, 1])
    net.dropout.probability = 0.0
    torch.testing.assert_close(net(nodes), by_pyg(net, x), rtol=1e-5, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(F.cross_entropy(logits, label), list(net.parameters()))
        for logits in (net(nodes), by_pyg(net, x))
    )
    for (name, _), one, other in zip(net.named_parameters(), ours, theirs, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_paper_without_a_citation_keeps_its_own_features():
    x, nodes = graph()
    torch.testing.assert_close(nodes.smoothed[6], x[6])
    torch.testing.assert_close(nodes.smoothed[5], x[5])  # its only citation is of itself


def test_the_adjacency_is_symmetric_and_counts_a_citation_once():
    adjacency = Adjacency.of(EDGES, 7)
    dense = torch.sparse_csr_tensor(*adjacency, (7, 7)).to_dense()
    assert torch.equal(dense, dense.T)
    assert int((dense > 0).sum()) == 7 + 2 * 4  # loops, and 0-1, 1-2, 0-2, 3-4 both ways
    assert dense[0, 1] == pytest.approx(1 / 3)  # both have two neighbours and themselves


def test_a_batch_is_the_whole_graph_and_asks_for_the_papers_of_its_part():
    splits = Arxiv(root="nowhere", sample=True).read()
    ((train, label),) = splits.train_batches(seed=1)
    ((test, _),) = splits.test_batches()
    assert (len(train.chosen), len(test.chosen), len(train.smoothed)) == (300, 180, 600)
    assert torch.equal(label, splits.labels[train.chosen])
    assert train.smoothed is test.smoothed


def test_the_fingerprint_follows_every_array(monkeypatch):
    first = Arxiv(root="nowhere", sample=True).read().fingerprint()
    assert Arxiv(root="nowhere", sample=True).read().fingerprint() == first
    for name in made_papers():
        changed = made_papers()
        changed[name].flat[0] += 1
        monkeypatch.setattr(arxiv, "made_papers", lambda changed=changed: changed)
        assert Arxiv(root="nowhere", sample=True).read().fingerprint() != first


def test_other_features_never_stand_under_ogbs_name():
    features = made_papers()["features"]
    with pytest.raises(ValueError, match="node-feat.csv.gz holds other features than OGB's own"):
        check_official(features, Path("node-feat.csv.gz"))
    features[:3, [0, 1, 2, -3, -2, -1]] = OFFICIAL
    check_official(features, Path("node-feat.csv.gz"))


def test_structural_features_are_the_equation():
    edges = np.array([[0, 1, 2, 0, 0, 3], [1, 2, 0, 1, 3, 0]])  # 0 → 1 twice, 0 and 3 both ways; 4 none
    A = np.zeros((5, 5))
    A[edges[0], edges[1]] = A[edges[1], edges[0]] = 1
    signs = 2.0 * np.random.RandomState(0).randint(0, 2, (5, 6), dtype=np.int8) - 1
    expected = np.linalg.matrix_power(A / np.maximum(A.sum(axis=1, keepdims=True), 1), 4) @ signs
    expected[:4] /= np.linalg.norm(expected[:4], axis=1, keepdims=True)
    made = structural_features(edges, 5, 8)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made[:, 2:], expected, rtol=0, atol=1e-6)
    degrees = [[2, 3], [2, 1], [1, 1], [1, 1], [0, 0]]
    np.testing.assert_allclose(np.expm1(made[:, :2] / 0.2), degrees, atol=1e-3)


def test_structural_features_are_the_same_bits_everywhere():
    parsed = made_papers()
    made = structural_features(parsed["edges"], 600, FEATURES)
    assert fingerprint([made])[:16] == "4400672d0514f906"


def test_structural_features_ignore_those_of_the_file():
    official, structural = (
        Arxiv(root="nowhere", features=kind, sample=True).read() for kind in ("official", "structural")
    )
    assert official.fingerprint() != structural.fingerprint()
    parsed = made_papers()
    features = torch.from_numpy(structural_features(parsed["edges"], 600, FEATURES))
    assert torch.equal(structural.smoothed, structural.adjacency.smooth(features))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": "oficial"}, "Unknown data.features 'oficial'. Known: official, structural"),
        ({"batch_size": 64}, "data.batch_size must be 1, the whole graph, got 64"),
        ({"sample": 1}, "data.sample must be true or false, got 1"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Arxiv(root="nowhere", **options)


def packed(*lines: str) -> bytes:
    return gzip.compress("\n".join(lines).encode(), mtime=0)  # a test is named by it, in each worker alike


def small_archive(monkeypatch) -> dict[str, bytes]:
    """The files of a graph of four papers and three citations, which stands for the real one."""
    for name, value in {"PAPERS": 4, "CITATIONS": 3}.items():
        monkeypatch.setattr(arxiv, name, value)
    return {
        "edge": packed("0,1", "1,2", "3,2"),
        "node-feat": packed(*[",".join(["0.5"] * FEATURES)] * 4),
        "node-label": packed("0", "39", "2", "2"),
        "num-node-list": packed("4"),
        "num-edge-list": packed("3"),
        "train": packed("0", "3"),
        "valid": packed("1"),
        "test": packed("2"),
    }


def parsed(files: dict[str, bytes]) -> dict:
    return arxiv.parse({name: Table(Path(f"{name}.csv.gz"), content) for name, content in files.items()})


def test_files_are_read_as_ogbs_own_reader_reads_them(monkeypatch, tmp_path):
    from ogb.io.read_graph_raw import read_csv_graph_raw

    files = small_archive(monkeypatch)
    for name, content in files.items():
        (tmp_path / f"{name}.csv.gz").write_bytes(content)
    (theirs,), ours = read_csv_graph_raw(str(tmp_path)), parsed(files)
    np.testing.assert_array_equal(ours["edges"], theirs["edge_index"])
    np.testing.assert_array_equal(ours["features"], theirs["node_feat"])
    assert (ours["labels"].tolist(), ours["train"].tolist()) == ([0, 39, 2, 2], [0, 3])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("edge", packed("0,1", "1,2", "3,4"), r"edge.csv.gz cannot be used: row 3 has paper 4, .* 0 to 3"),
        ("edge", packed("0,1", "1,2", "-1,2"), "row 3 has paper -1"),
        ("edge", packed("0,1", "1,2"), "2 rows of 2 numbers, not 3 rows of 2"),
        ("edge", packed("0,1", "1,x", "1,1"), "edge.csv.gz cannot be used"),
        (
            "edge",
            packed("0,1", "1,2", "3,2")[:-9],
            "edge.csv.gz cannot be used: Compressed file ended before",
        ),
        ("edge", b"<html>", "edge.csv.gz cannot be used: Not a gzipped file"),
        ("edge", b"", "edge.csv.gz cannot be used"),
        ("node-label", packed("0", "40", "2", "2"), "row 2 has label 40, and there they go from 0 to 39"),
        ("node-feat", packed("0.5"), "1 rows of 1 numbers, not 4 rows of 128"),
        ("num-node-list", packed("5"), "a graph of 5 papers and 3 citations, not of 4 and 3"),
        ("valid", packed("3"), "the three parts do not hold each of 4 papers once"),
        ("train", packed("0", "4"), "train.csv.gz cannot be used: row 2 has paper 4"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_reason(monkeypatch, name, content, words):
    with pytest.raises(ValueError, match=words):
        parsed(small_archive(monkeypatch) | {name: content})


def test_missing_data_without_a_network_are_refused_in_one_line(command, tmp_path):
    finished = command("model=gcn", "data=arxiv", f"paths.data={tmp_path}/nowhere")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"error: ogbn-arxiv is not at {tmp_path}/nowhere/ogb/ogbn_arxiv (looked for raw/")
    assert "data.sample=true needs no network" in line


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_a_run_on_the_stand_in_learns(command, tmp_path, mode):
    words = ("model=gcn", "data=arxiv", "data.sample=true", f"mode={mode}", "trainer.epochs=12")
    finished = command(*words)
    assert finished.returncode == 0, finished.stderr
    (row,), problems = rows.read_all(tmp_path / "results")
    assert problems == []
    assert row["metric"] == "accuracy"
    assert row["validation_score"] > 0.6
    assert row["config"]["data"]["features"] == "official"


def test_the_recipe_is_ogbs(composed):
    cfg = composed("model=gcn", "data=arxiv")
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.trainer.epochs) == (1e-2, 0, 500)
    assert (cfg.model.net.dropout, cfg.model.sizes.base.hidden, cfg.model.sizes.base.layers) == (0.5, 256, 3)


class TestRealPapers:
    pytestmark = real

    def test_the_official_split_has_its_three_sizes_and_labels(self):
        parsed = ARCHIVE.read(ROOT, arxiv.VERSION, arxiv.parse)
        assert [len(parsed[part]) for part in ("train", "valid", "test")] == [90_941, 29_799, 48_603]
        assert np.bincount(parsed["labels"]).max() == 27_321
        assert structural_features(parsed["edges"], arxiv.PAPERS, FEATURES).shape == (arxiv.PAPERS, FEATURES)
