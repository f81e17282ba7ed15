"""GIN on molecules: equal to PyG, batched by arithmetic, scored as OGB does, and broken files."""

import gzip
import os
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from http.server import HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lottalora.build import build
from lottalora.data import molhiv
from lottalora.data.arxiv import Arxiv
from lottalora.data.batches.graph import Molecules
from lottalora.data.molhiv import ARCHIVE
from lottalora.data.molhiv import ATOM
from lottalora.data.molhiv import BOND
from lottalora.data.molhiv import MolHIV
from lottalora.data.sources.ogb import Table
from lottalora.downloads import download_file
from lottalora.models.gin import GIN
from lottalora.models.gin import without_update_check
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.binary import balanced

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "ogb")
real = [
    pytest.mark.data,
    pytest.mark.skipif(bool(ARCHIVE.missing(ROOT)), reason=f"ogbg-molhiv is not at {ROOT}"),
]
TRAINABLE = {
    ("gin", "molhiv", 8): 131_416,
    ("gin", "molhiv", 16): 203_416,
    ("gin", "molhiv", 32): 347_416,
    ("gcn", "arxiv", 1): 2_219,
    ("gcn", "arxiv", 8): 10_563,
    ("gcn", "arxiv", 32): 39_171,
}
FULL = {"gin": 1_863_906, "gcn": 110_120}


@pytest.fixture(scope="module")
def sample():
    return MolHIV(root="nowhere", batch_size=16, sample=True).read()


def net_on(rank: int | None) -> GIN:
    """A small net, dense or on a scaffold whose B is not 0; no ε is 0."""
    torch.manual_seed(0)
    net = GIN((9,), 1, hidden=12, layers=3, dropout=0.5)
    if rank:
        wrap(net, Scaffold(rank=rank, B_init="kaiming", bias="frozen"), keep=["atoms", "bonds", "head"])
    for conv in net.convs:
        nn.init.uniform_(conv.eps, 0.1, 0.9)
    return net


def by_pyg(net: GIN, x: Molecules) -> torch.Tensor:
    """The logits that PyG's own convolutions and pooling give with the same weights."""
    from torch_geometric.nn import global_mean_pool

    e, h = net.bonds(x.kinds), net.atoms(x.atoms)
    h = F.relu(net.norms[0](net.convs[0](h, x.bonds, e)))
    h = h + F.relu(net.norms[1](net.convs[1](h, x.bonds, e)))
    h = h + net.norms[2](net.convs[2](h, x.bonds, e))
    return net.head(global_mean_pool(h, x.molecule))


@pytest.mark.parametrize("rank", [None, 2])
def test_logits_and_gradients_are_those_of_pygs_convolution(sample, rank):
    net = net_on(rank)
    net.dropout.probability = 0.0
    x, label = sample.molecules.batch(torch.tensor([5, 399, 0, 7]))
    ours, theirs = net(x), by_pyg(net, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    pairs = (
        torch.autograd.grad(F.binary_cross_entropy_with_logits(logits[:, 0], label.float()), values)
        for values in [list(net.parameters())]
        for logits in (ours, theirs)
    )
    for (name, _), one, other in zip(net.named_parameters(), *pairs, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_molecule_is_scored_alike_alone_and_beside_others(sample):
    net = net_on(2).eval()
    together = net(sample.molecules.batch(torch.tensor([3, 8, 3]))[0])
    alone = net(sample.molecules.batch(torch.tensor([8]))[0])
    torch.testing.assert_close(together[1], alone[0])
    torch.testing.assert_close(together[0], together[2])


def test_a_batch_holds_the_atoms_and_bonds_of_its_molecules_both_ways(sample):
    flat, index = sample.molecules, torch.tensor([7, 2])
    x, label = flat.batch(index)
    sizes = flat.atom_counts[index].tolist()
    assert (x.sizes.tolist(), label.tolist()) == (sizes, flat.labels[index].tolist())
    begin, bonds = int(flat.atom_counts[:7].sum()), int(flat.bond_counts[:7].sum())
    assert torch.equal(x.atoms[: sizes[0]], flat.atoms[begin : begin + sizes[0]].int())
    assert torch.equal(x.kinds[: sizes[0] - 1], flat.kinds[bonds : bonds + sizes[0] - 1].int())
    chains = [
        (first + i, first + i + 1) for first, n in ((0, sizes[0]), (sizes[0], sizes[1])) for i in range(n - 1)
    ]
    assert sorted(map(tuple, x.bonds.T.tolist())) == sorted(chains + [(b, a) for a, b in chains])


def test_an_epoch_holds_every_molecule_once_in_an_order_of_seed_and_epoch(sample):
    one, same, other = (sample.train_batches(seed) for seed in (1, 1, 2))
    sizes = [x.sizes.tolist() for x, _ in one]
    assert sum(map(len, sizes)) == 280 and len(sizes) == len(one) == 18
    torch.rand(3)
    assert [x.sizes.tolist() for x, _ in same] == sizes != [x.sizes.tolist() for x, _ in other]
    one.sampler.set_epoch(1)
    assert [x.sizes.tolist() for x, _ in one] != sizes
    assert sorted(sum((x.sizes.tolist() for x, _ in one), [])) == sorted(sum(sizes, []))


def test_the_values_of_features_are_those_of_ogbs_encoders():
    with without_update_check():
        from ogb.utils.features import get_atom_feature_dims
        from ogb.utils.features import get_bond_feature_dims
    assert (tuple(get_atom_feature_dims()), tuple(get_bond_feature_dims())) == (ATOM, BOND)


def test_ogb_is_imported_without_its_look_for_updates():
    with without_update_check(), pytest.raises(ImportError):
        import outdated  # noqa: F401
    assert sys.modules.get("outdated", sys) is not None


def test_the_score_is_that_of_ogbs_evaluator_also_of_ties_and_very_sure_answers():
    from ogb.graphproppred import Evaluator

    torch.manual_seed(0)
    logits, label = (6 * torch.randn(300, 1)).round(), torch.randint(0, 2, (300,))
    logits[:4, 0], label[:4] = torch.tensor([20.0, 22.0, 24.0, 21.0]), torch.tensor([0, 1, 1, 0])
    task = balanced(nn.Identity(), MolHIV.spec, None, None)
    for part in (slice(0, 100), slice(100, 300)):
        step = task.step((logits[part], label[part]))
        task.test_score.update(step.prediction, step.target)
    theirs = Evaluator("ogbg-molhiv").eval({"y_true": label[:, None], "y_pred": logits})["rocauc"]
    assert task.test_score.compute().item() == pytest.approx(theirs, abs=1e-6)


def test_the_loss_counts_a_yes_by_its_weight():
    task = balanced(nn.Identity(), MolHIV.spec, None, None)
    task.positive_weight = 25.7
    loss = task.step((torch.tensor([[0.3], [-0.4]]), torch.tensor([1, 0]))).loss
    assert loss.item() == pytest.approx((25.7 * np.log1p(np.exp(-0.3)) + np.log1p(np.exp(-0.4))) / 2)


@pytest.mark.parametrize(("model", "data", "rank"), TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_tables_18_and_19_say(composed, model, data, rank):
    spec = {"molhiv": MolHIV, "arxiv": Arxiv}[data].spec
    with torch.device("meta"):
        net, account = build(composed(f"model={model}", f"data={data}", f"rank={rank}"), spec)
    assert account.trainable == TRAINABLE[model, data, rank] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL[model]


def test_the_recipe_is_the_papers_protocol(composed):
    cfg = composed("model=gin", "data=molhiv")
    assert (cfg.optimizer.lr, cfg.trainer.epochs, cfg.trainer.clip, cfg.data.batch_size) == (1e-3, 300, 1, 64)
    assert (cfg.model.sizes.base.hidden, cfg.model.sizes.base.layers, cfg.model.net.dropout) == (300, 5, 0.5)


def packed(*lines: str) -> bytes:
    return gzip.compress("\n".join(lines).encode(), mtime=0)  # a test is named by it, in each worker alike


def parsed(monkeypatch, **changed: bytes) -> dict:
    """What is read of three molecules, of 2, 1 and 2 atoms, which stand for the real ones."""
    monkeypatch.setattr(molhiv, "MOLECULES", 3)
    files = {
        "edge": packed("0,1", "1,0"),
        "edge_feat": packed("0,0,0", "4,5,1"),
        "node_feat": packed("118,0,4,5,3,0,2,0,0", *["5,0,4,5,2,0,2,0,1"] * 4),
        "graph_label": packed("0", "1", "0"),
        "num_node_list": packed("2", "1", "2"),
        "num_edge_list": packed("1", "0", "1"),
        **{"train": packed("1"), "valid": packed("0"), "test": packed("2")},
    } | changed
    named = {name.replace("_", "-"): content for name, content in files.items()}
    return molhiv.parse({name: Table(Path(f"{name}.csv.gz"), content) for name, content in named.items()})


def test_files_are_read_molecule_by_molecule(monkeypatch):
    read = parsed(monkeypatch)
    assert read["atoms"].shape == (5, 9) and read["atoms"][0, 0] == 118
    assert (read["bonds"].tolist(), read["labels"].tolist()) == ([[0, 1], [1, 0]], [0, 1, 0])
    x, _ = molhiv.Flat.of(read).batch(torch.tensor([2, 1, 0]))
    assert x.bonds.T.tolist() == [[1, 0], [3, 4], [0, 1], [4, 3]]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"edge": packed("0,1", "1,2")}, "edge.csv.gz cannot be used: row 2 has atom 2, .* from 0 to 1"),
        ({"edge": packed("0,1", "1,0")[:-9]}, "edge.csv.gz cannot be used: Compressed file ended before"),
        ({"edge": packed("0,1")}, "1 rows of 2 numbers, not 2 rows of 2"),
        ({"node_feat": packed(*["119,0,4,5,3,0,2,0,0"] * 5)}, "row 1 has feature 119, .* from 0 to 118"),
        ({"node_feat": packed(*["5,0,4,5,3,0,2,2,0"] * 5)}, "row 1 has feature 2, .* from 0 to 1"),
        ({"graph_label": packed("0", "2", "0")}, "graph-label.csv.gz cannot be used: row 2 has label 2"),
        ({"graph_label": packed("0", "1")}, "2 rows of 1 numbers, not 3 rows of 1"),
        ({"train": packed("3")}, "train.csv.gz cannot be used: row 1 has molecule 3"),
        ({"train": packed("2")}, "the three parts do not hold each of 3 molecules once"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_reason(monkeypatch, changed, words):
    with pytest.raises(ValueError, match=words):
        parsed(monkeypatch, **changed)


def test_a_download_that_is_no_archive_leaves_nothing_and_is_refused(monkeypatch, tmp_path):
    page = tmp_path / "hiv.zip"
    page.write_text("<html>")
    broken = replace(ARCHIVE, url=page.as_uri())
    with pytest.raises(FileNotFoundError, match=r"ogbg-molhiv is not at .* sent 6 bytes that are no archive"):
        broken.read(tmp_path / "ogb", 1, dict)
    assert not (tmp_path / "ogb").exists()


def test_a_download_that_breaks_off_leaves_nothing_and_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # the server is here, whatever the machine's proxy

    class Halved(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(bytes(50))

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Halved) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/hiv.zip"
        with pytest.raises(FileNotFoundError, match=r"ogbg-molhiv is not at .* broke off: .*50 bytes read"):
            replace(ARCHIVE, url=url).read(tmp_path / "ogb", 1, dict)
        with pytest.raises(OSError, match="broke off"):
            download_file(url, tmp_path / "file")
        server.shutdown()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_a_run_on_the_stand_in_learns(command, tmp_path, mode):
    words = ("model=gin", "data=molhiv", "data.sample=true", f"mode={mode}", "trainer.epochs=8")
    finished = command(*words, "data.batch_size=32", "model.sizes.base.hidden=32", "optimizer.lr=0.01")
    assert finished.returncode == 0, finished.stderr
    (row,), problems = rows.read_all(tmp_path / "results")
    assert problems == []
    assert row["metric"] == "rocauc"
    assert row["validation_score"] > 0.75


class TestRealMolecules:
    pytestmark = real

    def test_the_official_split_has_its_sizes_and_positives(self):
        splits = MolHIV(root=str(ROOT), batch_size=64).read()
        labels = splits.molecules.labels
        assert [len(part) for part in splits.parts.values()] == [32_901, 4_113, 4_113]
        assert [int(labels[part].sum()) for part in splits.parts.values()] == [1232, 81, 130]
