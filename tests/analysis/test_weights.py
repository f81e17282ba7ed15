"""Kept weights, and the mathematics and tables of what is made from them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate

from lottalora.analysis import spectra
from lottalora.analysis.cost import compressed_bytes
from lottalora.analysis.similarity import linear_cka
from lottalora.artifacts import weights
from lottalora.build import build
from lottalora.cli.main import main
from lottalora.config import check  # noqa: F401  its resolvers, for composing
from lottalora.config.identity import portable
from lottalora.report.analyses import bytes as bytes_table
from lottalora.report.analyses import output as analyses
from lottalora.report.analyses import paths as paths_table
from lottalora.report.analyses import similarity as similarity_table
from lottalora.report.analyses import updates as update_tables
from lottalora.report.analyses.kept_runs import beta_zero
from lottalora.report.analyses.kept_runs import score_again
from lottalora.report.analyses.kept_runs import seen_by_layers
from lottalora.report.from_rows import blocks_of
from lottalora.report.page.analysis_sections import OF_WEIGHTS
from lottalora.report.page.analysis_sections import analysis_sections
from lottalora.report.page.section import Shown
from lottalora.results.rows import write
from lottalora.scaffold import without_scaffold
from lottalora.scaffold.artifact.precision import PRECISIONS
from lottalora.scaffold.artifact.precision import in_precision
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

ROOT = Path(__file__).parents[2]
GENERATOR = np.random.default_rng(0)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with rows and weights of digits: full training at two seeds, ranks 2 and 4."""
    folder = tmp_path_factory.mktemp("results")
    rows = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for words in (["mode=baseline", "seed=42"], ["mode=baseline", "seed=43"], ["rank=2"], ["rank=4"]):
            rows.append(kept_row(compose("config", overrides=[*COMMON, *words]), folder))
    return folder, rows


COMMON = ["model=mlp", "model.size=tiny", "data=digits", "keep_weights=true"]


def kept_row(cfg, folder):
    """Change a net a little, as training would, keep its weights, and make its row."""
    data = instantiate(cfg.data)
    torch.manual_seed(cfg.seed)
    net, account = build(cfg, data.spec)
    start = weights.start_of(net, cfg)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    make = make_row if cfg.scaffold else make_baseline
    counted = account.as_dict(net)
    row = make(
        data="digits", size="tiny", seed=cfg.seed, config=portable(cfg), account=counted["entries"],
        data_fingerprint=data.read().fingerprint(), **({"rank": cfg.rank} if cfg.scaffold else {}),
    )  # fmt: skip
    row["score"] = score_again(net.eval(), weights.Kept(folder), row)
    return row | weights.keep(net, start, row, folder) | {"net": net}


def test_kept_net_computes_what_the_trained_one_did(results):
    folder, rows = results
    kept, x = weights.Kept(folder), torch.randn(5, 1, 8, 8)
    for row in rows:
        assert torch.equal(kept.net(row)(x), row["net"](x))


def test_nothing_is_kept_unless_asked_for_or_of_a_diverged_run(results, tmp_path):
    _, (full, *_) = results
    unasked = full | {"config": full["config"] | {"keep_weights": False}}
    assert weights.keep(full["net"], {}, unasked, tmp_path) == {}
    assert weights.keep(full["net"], {}, full | {"diverged": True}, tmp_path) == {}
    assert not (tmp_path / "weights").exists()


def test_weights_of_other_data_are_refused(results):
    folder, (full, *_) = results
    with pytest.raises(ValueError, match="its fingerprint differs. Set LOTTALORA_DATA"):
        weights.Kept(folder).net(full | {"data_fingerprint": "other"})


def test_start_is_the_dense_net_before_training(results):
    folder, (full, *_) = results
    kept = weights.Kept(folder)
    start, fresh = kept.state(full, weights.START), kept.fresh(full, full["seed"]).state_dict()
    assert start.keys() == fresh.keys() and all(torch.equal(start[key], fresh[key]) for key in start)


def test_full_training_cut_off_at_full_rank_is_full_training(results):
    folder, (full, *_) = results
    kept = weights.Kept(folder)
    assert update_tables.truncated_score(full, 64, kept) == full["score"]
    assert update_tables.truncated_score(full, 1, kept) != full["score"]


def test_two_paths_and_the_bias_make_the_output(results):
    folder, rows = results
    kept = weights.Kept(folder)
    net, layers = kept.net(rows[2]), []

    def note(_, layer, x, output):
        if layer in scaffold_layers(net).values():
            bare = layer.beta * (x @ layer.W_seed.T) + layer.adapter.scale * (x @ layer.A.T @ layer.B.T)
            torch.testing.assert_close(bare + layer.bias, output)
            frozen, update = paths_table.norms(layer, x)
            assert frozen == pytest.approx((layer.beta * (x @ layer.W_seed.T)).square().mean().sqrt().item())
            layers.append(update)

    seen_by_layers(net, torch.randn(6, 1, 8, 8), note)
    assert len(layers) == 2 and min(layers) > 0


def test_beta_at_zero_is_the_scaffold_removed_and_comes_back(results):
    folder, rows = results
    kept = weights.Kept(folder)
    net, before = kept.net(rows[3]), score_again(kept.net(rows[3]), kept, rows[3])
    with beta_zero(net):
        zero = score_again(net, kept, rows[3])
    with without_scaffold(net):
        assert score_again(net, kept, rows[3]) == zero
    assert score_again(net, kept, rows[3]) == before


def test_similarity_has_a_line_for_each_arm_another_training_and_the_random_net(results):
    folder, rows = results
    found = similarity_table.analyse(blocks_of(rows), weights.Kept(folder))
    (table,) = found.tables
    assert [line[0] for line in table.lines] == [
        "scaffold", "scaffold", "full training", "untrained net", "untrained net",
    ]  # fmt: skip
    assert table.headings[-3:] == ["body.1", "body.4", "head"]
    assert all(0 <= line["cka"] <= 1 for line in found.numbers)


@pytest.mark.parametrize("module", [paths_table, similarity_table, bytes_table])
def test_an_analysis_of_weights_is_drawn_and_shown_from_its_file_without_them(results, tmp_path, module):
    folder, rows = results
    blocks, name = blocks_of(rows), module.__name__.rpartition(".")[2].removesuffix("_table")
    found = module.analyse(blocks, weights.Kept(folder))
    analyses.write(found, tmp_path / "analyses" / name)
    (section,) = analysis_sections(Shown(blocks, {}, tmp_path))
    (part,) = [each for each in section.parts if each.title == OF_WEIGHTS[name]]
    (picture,) = part.pictures
    assert part.tables == found.tables
    drawn = {line["arm"] for line in csv.DictReader(picture.numbers.splitlines())}
    assert drawn == {line["arm"] for line in found.numbers} and len(drawn) >= 2
    assert f"analyse {name} " not in " ".join(section.sentences)  # what is there needs no command


def test_a_damaged_file_of_an_analysis_is_as_none(tmp_path):
    folder = tmp_path / "analyses" / "paths"
    folder.mkdir(parents=True)
    (folder / "paths.json").write_text('{"title": "x"}')
    (section,) = analysis_sections(Shown([], {}, tmp_path))
    assert "`python -m lottalora analyse paths --results kept`" in section.sentences[-1]


def test_subspaces_and_amplification_have_a_line_for_each_layer(results):
    folder, rows = results
    kept = weights.Kept(folder)
    (block,) = blocks_of(rows)
    _, overlaps = update_tables.overlap_table(block, rows[2:], kept)
    assert [line["layer"] for line in overlaps] == ["body.1", "body.4"]
    assert overlaps[0]["random"] == 4 / 64
    _, amplified = update_tables.amplification_table(block, rows[2:], kept)
    assert len(amplified) == 4


def test_bytes_are_those_of_the_tensors_in_each_precision(results):
    folder, rows = results
    kept, blocks = weights.Kept(folder), blocks_of(rows)
    analysed = bytes_table.analyse(blocks, kept)
    found = analysed.numbers
    assert len(found) == 4 * 5 and {line["precision"] for line in found} == set(PRECISIONS)
    for row in rows:
        net = kept.net(row)
        held = {name: each for name, each in net.state_dict().items() if not name.endswith("identity")}
        matrices = [each.numel() for each in held.values() if each.dim() > 1]
        vectors = sum(each.numel() for each in held.values() if each.dim() < 2)  # frozen biases and β too
        rank = row["rank"] if row["mode"] == "scaffold" else None
        own = [each for each in found if (each["rank"], each["seed"]) == (rank, row["seed"])]
        for line in own:
            bits = {"fp32": 4 * sum(matrices), "bf16": 2 * sum(matrices), "fp16": 2 * sum(matrices)}
            size = bits.get(line["precision"]) or compressed_bytes(matrices, 0, line["precision"])
            assert line["tensors"] == size + 4 * vectors < line["file"]
        assert own[0]["score"] == score_again(net, kept, row) and own[0]["precision"] == "fp32"
        scores = {line["precision"]: line["score"] for line in own}
        with in_precision(net, "int4"):
            assert scores["int4"] == score_again(net, kept, row)
    (picture,) = bytes_table.pictures(blocks, analysed)
    assert "Kilobyte" not in str(picture.legend) and len(picture.numbers.splitlines()) == 21


@pytest.mark.parametrize("name", ["paths", "similarity", "bytes"])
def test_an_analysis_without_weights_names_the_command_that_makes_them(tmp_path, capsys, name):
    write(make_row(), tmp_path)
    assert main(["analyse", name, "--results", str(tmp_path)]) == 1
    assert "has kept its weights. Make some: python run.py -m sweeps=weights" in capsys.readouterr().err


def test_spectra_of_the_scaffold_need_no_runs(tmp_path, capsys):
    assert main(["analyse", "spectra", "--results", str(tmp_path)]) == 0
    assert "sweeps=weights" in capsys.readouterr().out
    with (tmp_path / "analyses" / "spectra" / "spectra.csv").open() as file:
        lines = {(line["family"], line["d"]): line for line in csv.DictReader(file)}
    normal, orthogonal = lines["normal", "512"], lines["orthogonal", "512"]
    assert float(normal["sigma_1"]) == pytest.approx(2, rel=0.03)  # 2 √d σ with σ = 1/√d
    assert float(orthogonal["sigma_1"]) == pytest.approx(1, rel=1e-4)


def test_largest_singular_value_is_numpys():
    W = GENERATOR.standard_normal((30, 50))
    assert spectra.largest_singular_value(W) == pytest.approx(np.linalg.norm(W, 2))


def test_truncation_leaves_out_the_energy_beyond_its_rank():
    W = GENERATOR.standard_normal((12, 9))
    s = np.linalg.svd(W, compute_uv=False)
    cut = spectra.truncated(W, 3)
    assert np.linalg.matrix_rank(cut) == 3
    assert np.linalg.norm(W - cut) ** 2 == pytest.approx((s[3:] ** 2).sum())
    assert spectra.energy(s, 3) == pytest.approx(np.linalg.norm(cut) ** 2 / np.linalg.norm(W) ** 2)
    assert (
        spectra.rank_for(np.array([3.0, 1.0]), 0.9) == 1 and spectra.rank_for(np.array([1.0, 1.0]), 0.9) == 2
    )
    assert spectra.stable_rank(np.array([2.0, 2.0, 2.0])) == pytest.approx(3)


def test_overlap_of_contained_orthogonal_and_random_subspaces():
    Q = np.linalg.qr(GENERATOR.standard_normal((40, 40)))[0]
    assert spectra.overlap(Q[:, :2], Q[:, :5]) == pytest.approx(1)
    assert spectra.overlap(Q[:, :2], Q[:, 2:5]) == pytest.approx(0, abs=1e-12)
    drawn = [
        spectra.overlap(Q[:, :3], np.linalg.qr(GENERATOR.standard_normal((40, 6)))[0]) for _ in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(spectra.random_overlap(40, 3, 6), rel=0.05)


def test_amplification_is_the_updates_norm_over_that_of_what_it_acts_on():
    W, update = np.diag([2.0, 5.0, 7.0]), np.zeros((3, 3))
    update[0, 0] = 6.0
    assert spectra.amplification(W, update, 1) == pytest.approx(3)


def test_cka_ignores_rotation_and_scale_and_nothing_else():
    X = GENERATOR.standard_normal((200, 6))
    Q = np.linalg.qr(GENERATOR.standard_normal((6, 6)))[0]
    assert linear_cka(X, 3 * X @ Q + 1) == pytest.approx(1)
    assert linear_cka(X, GENERATOR.standard_normal((200, 6))) < 0.15
    assert np.isnan(linear_cka(X, np.ones((200, 2))))
