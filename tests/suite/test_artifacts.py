"""What a run leaves behind: its artifact, and the commands that read it."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from lottalora.artifacts import runs as artifacts
from lottalora.artifacts.weights import Kept
from lottalora.build import build
from lottalora.cli.main import main
from lottalora.config.check import check
from lottalora.config.check_values import CHOICES
from lottalora.config.identity import portable
from lottalora.data.batches.batch import Sequences
from lottalora.data.batches.batch import Texts
from lottalora.data.batches.batch import Windows
from lottalora.data.batches.graph import Adjacency
from lottalora.data.batches.graph import Molecules
from lottalora.data.batches.graph import Nodes
from lottalora.report.analyses.kept_runs import score_again
from lottalora.results import rows
from lottalora.scaffold import deviation
from lottalora.scaffold import load
from lottalora.scaffold import read
from lottalora.scaffold import save
from lottalora.scaffold import verify
from lottalora.scaffold.artifact.precision import PRECISIONS
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from tests import commands

ROOT = Path(__file__).parents[2]
BONDS = torch.tensor([[0, 1, 1, 2, 3, 4], [1, 0, 2, 1, 4, 3]])


def molecules():
    atoms, kinds = torch.zeros(5, 9, dtype=torch.long), torch.zeros(6, 3, dtype=torch.long)
    return Molecules(atoms, BONDS, kinds, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([3, 2]))


def nodes():
    adjacency = Adjacency.of(BONDS, 5)
    return Nodes(adjacency.smooth(torch.randn(5, 128)), adjacency, torch.tensor([4, 0]))


def windows():
    parts = torch.randn(2, 20, 1), torch.randn(2, 20, 17), torch.randn(2, 20, 6)
    return Windows(*parts, torch.arange(20).expand(2, -1), torch.ones(2, 20).bool())


MODELS = {  # pair, input
    "mlp": (["model=mlp", "model.size=tiny", "data=digits"], lambda: torch.randn(2, 1, 8, 8)),
    "resnet": (["model=resnet", "data=cifar10"], lambda: torch.randn(2, 3, 32, 32)),
    "vit": (["model=vit_random", "model.size=tiny", "data=flowers102"], lambda: torch.randn(2, 3, 224, 224)),
    "gpt": (["model=gpt", "data=text"], lambda: torch.randint(99, (2, 9))),
    "cfc": (["model=cfc", "model.size=0.125x", "data=physionet2012"],
            lambda: Sequences(torch.randn(2, 7, 82), torch.rand(2, 7), torch.tensor([7, 3]))),
    "decision_transformer": (["model=decision_transformer", "data=halfcheetah"], windows),
    "distilbert": (["model=distilbert", "data=imdb"],
                   lambda: Texts(torch.randint(1, 99, (2, 9)), torch.tensor([9, 4]))),
    "gcn": (["model=gcn", "data=arxiv"], nodes),
    "gin": (["model=gin", "data=molhiv"], molecules),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    artifacts.register_models()


def test_every_model_has_an_architecture():
    assert MODELS.keys() == artifacts.TARGETS.keys() and len(MODELS) == 9


@pytest.mark.parametrize("name", sorted(MODELS))
def test_model_comes_back_to_the_bit(composed, tmp_path, name):
    pair, example = MODELS[name]
    cfg = composed(*pair, "rank=2")
    spec = instantiate(cfg.data).spec
    torch.manual_seed(0)
    net, _ = build(cfg, spec)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = tmp_path / "net.safetensors"
    save(net, path, architecture=(name, artifacts._arguments(name, spec, portable(cfg)["model"])))
    other, x = load(path), example()
    assert verify(other) == []
    layers, others = scaffold_layers(net), scaffold_layers(other)
    assert layers.keys() == others.keys()
    assert all(torch.equal(layers[each].W_seed, others[each].W_seed) for each in layers)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), other(x))


class OneBatch:
    """The test part as one batch."""

    def __init__(self, batch):
        self.test_batches = lambda: iter([(batch, None)])


@pytest.mark.parametrize("name", ["gcn", "gin"])
def test_graphs_have_a_probe(composed, tmp_path, monkeypatch, name):
    monkeypatch.setattr(artifacts, "NODES", 5)
    pair, example = MODELS[name]
    cfg = composed(*pair, "rank=2")
    spec = instantiate(cfg.data).spec
    torch.manual_seed(0)
    net, _ = build(cfg, spec)
    whole, path = example(), tmp_path / "net.safetensors"
    probe = artifacts._probe(name, OneBatch(whole))
    save(
        net, path, architecture=(name, artifacts._arguments(name, spec, portable(cfg)["model"])), probe=probe
    )
    artifact = read(path)
    assert deviation(load(path), artifact) == 0
    if name == "gin":  # the molecules are whole, so the outputs are those of the whole batch
        with torch.no_grad():
            torch.testing.assert_close(artifact.output, net.eval()(whole))


def test_part_of_a_graph_is_a_block_of_its_matrix():
    def dense(adjacency):
        return adjacency.smooth(torch.eye(len(adjacency.begins) - 1))

    whole = nodes()
    part = whole.part(3, 2)
    part.check()
    torch.testing.assert_close(dense(part.adjacency), dense(whole.adjacency)[:3, :3])
    part.adjacency.columns[0] = 3
    with pytest.raises(ValueError, match="outside"):
        part.check()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The results of a short run with artifact=true, and its artifact."""
    results = tmp_path_factory.mktemp("results")
    words = ("model=mlp", "model.size=tiny", "data=digits", "rank=2", "trainer.epochs=1", "artifact=true")
    ran = commands.run(ROOT / "run.py", *words, f"paths.results={results}", cwd=results)
    assert ran.returncode == 0, ran.stderr
    (path,) = (results / "artifacts").iterdir()
    return results, path


def test_run_leaves_its_artifact_and_its_name_in_the_row(finished):
    results, path = finished
    ((row,), problems) = rows.read_all(results)
    assert not problems and row["artifact"] == path.name
    artifact = read(path)
    assert artifact.header.metrics["test accuracy"] == row["score"]
    assert artifact.header.provenance["digest"] == row["digest"]
    assert deviation(load(path), artifact) == 0
    assert len(artifact.inputs[0]) == 4


def test_artifact_is_no_part_of_the_digest(composed):
    from lottalora.config.identity import digest

    words = "artifact=true", "save.precision=int8", "save.zstandard=true"
    assert digest(composed("data=digits", *words)) == digest(composed("data=digits"))


def test_run_scores_the_bits_that_it_ships(tmp_path, capsys):
    pytest.importorskip("zstandard")
    words = ("model=mlp", "model.size=tiny", "data=digits", "rank=2", "trainer.epochs=1", "artifact=true")
    words += ("save.precision=int4", "save.zstandard=true", f"paths.results={tmp_path}")
    ran = commands.run(ROOT / "run.py", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    ((row,), _) = rows.read_all(tmp_path)
    path = tmp_path / "artifacts" / row["artifact"]
    artifact = read(path)
    assert artifact.header.zstandard and {each.precision for each in artifact.header.compressed} == {"int4"}
    assert artifact.header.metrics == {"test accuracy": row["arms"]["artifact"]}
    assert score_again(load(path), Kept(tmp_path), row) == pytest.approx(row["arms"]["artifact"])
    assert main(["score", str(path)]) == 0
    assert capsys.readouterr().out == f"test accuracy: {row['arms']['artifact']:.6f}\n"
    assert main(["score", str(path), "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "data=digits reads no files; leave --data out.\n"
    assert main(["score", str(path), "--stride", "4"]) == 1
    assert "--stride is for texts, and this artifact is mlp" in capsys.readouterr().err


@pytest.mark.parametrize("group", ["data", "model", "task"])
@pytest.mark.parametrize("by_reference", [False, True])
def test_row_that_would_call_another_function_is_refused(finished, tmp_path, capsys, group, by_reference):
    results, path = shutil.copytree(finished[0], tmp_path / "results"), finished[1]
    (file,) = results.glob("rows/*/*/*.json")
    row = json.loads(file.read_text())
    written = tmp_path / "written"
    call = {"_target_": "pathlib.Path.write_text"}
    call["_args_"] = [{"_target_": "pathlib.Path", "_args_": [str(written)]}, "text"]
    row["config"]["paths"] = call
    row["config"][group]["extra"] = "${paths}" if by_reference else call
    file.write_text(json.dumps(row))
    assert main(["score", str(results / "artifacts" / path.name)]) == 1
    said = capsys.readouterr().err
    assert f"would call {'${paths}' if by_reference else 'pathlib.Path.write_text'!r}, which no file" in said
    assert not written.exists()


def test_score_of_what_is_not_there_says_so(capsys, tmp_path):
    assert main(["score", str(tmp_path / "nope")]) == 1
    assert f"There is no artifact at {tmp_path / 'nope'}: name a file that" in capsys.readouterr().err


def test_run_whose_artifact_cannot_fit_is_refused_before_training(command, tmp_path):
    words = ("model=mlp", "model.size=tiny", "data=digits", "rank=2", "artifact=true")
    ran = command(*words, "save.max_bytes=5000", "paths.results=out")
    assert ran.returncode == 1
    assert (
        "The artifact would hold 6,448 bytes of tensors, and save.max_bytes=5000. Type a lower" in ran.stderr
    )
    assert not list(tmp_path.glob("out/rows/**/*.json"))


def test_run_of_a_model_that_artifacts_do_not_know_is_refused_before_training(command, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("from lottalora.models.mlp import MLP\n\nclass Own(MLP): pass\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    words = ("model=mlp", "model.size=tiny", "data=digits", "rank=2", "model.net._target_=own.Own")
    ran = command(*words, "artifact=true", "paths.results=out")
    assert ran.returncode == 1
    assert "artifact=true knows no model that own.Own builds: name it in TARGETS" in ran.stderr
    assert not list(tmp_path.glob("out/rows/**/*.json"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensors_are_counted_as_they_are_written(composed, tmp_path, precision):
    cfg = composed("model=mlp", "model.size=tiny", "data=digits", "rank=3")
    net, _ = build(cfg, instantiate(cfg.data).spec)
    save(net, tmp_path / "net.safetensors", precision=precision)
    tensors = read(tmp_path / "net.safetensors").sealed.tensors.values()
    written = sum(each.numel() * each.element_size() for each in tensors)
    assert artifacts.tensor_bytes(net, precision) == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["save.precision=int8"],
            "save.precision, save.zstandard and save.max_bytes are of the artifact. Type artifact=true",
        ),
        (["artifact=true", "save.precision=int3"], "save.precision must be fp32 or bf16 or fp16 or int8 or"),
        (["artifact=true", "save.max_bytes=1e6"], "save.max_bytes must be null or a whole number of bytes"),
        (["artifact=true", "save=int8"], "'save' holds no settings. Change what is in it, such as save.KEY"),
    ],
)
def test_setting_that_an_artifact_cannot_have_is_refused(typed, words, said):
    with pytest.raises(ValueError, match=said):
        check(typed("data=digits", *words), sweep=False)


def test_missing_zstandard_is_named_before_training(typed, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match=r"package zstandard. Type: pip install 'lottalora\[zstd\]'"):
        check(typed("data=digits", "artifact=true", "save.zstandard=true"), sweep=False)


def test_precisions_of_a_run_are_those_of_save():
    assert CHOICES["save.precision"] == PRECISIONS


def test_commands_read_an_artifact(finished, capsys, tmp_path):
    _, path = finished
    assert main(["inspect", str(path)]) == 0
    assert "mlp(" in capsys.readouterr().out
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["header"]["format"] == 1
    assert main(["verify", str(path)]) == 0
    assert "outputs: equal to the bit" in capsys.readouterr().out
    card = tmp_path / "README.md"
    assert main(["card", str(path), "--out", str(card)]) == 0
    assert main(["card", str(path), "--out", str(card)]) == 1
    assert "exists. Name another file" in capsys.readouterr().err


def test_card_is_one_that_hugging_face_reads(finished, capsys):
    hub = pytest.importorskip("huggingface_hub")
    assert main(["card", str(finished[1])]) == 0
    card = hub.ModelCard(capsys.readouterr().out)
    assert card.data.library_name == "lottalora"
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy"}
    assert {result.dataset_split for result in card.data.eval_results} == {"test", "validation"}


@pytest.mark.parametrize("command", ["inspect", "verify", "card", "score"])
def test_file_that_is_no_artifact_is_called_that_in_one_line(capsys, command):
    assert main([command, str(ROOT / "README.md")]) == 1
    said = f"{ROOT}/README.md is no artifact of lottalora: it does not begin as a safetensors file does.\n"
    assert capsys.readouterr().err == said


def test_damaged_artifact_is_one_line_and_exit_code_1(finished, capsys, tmp_path):
    content = bytearray(finished[1].read_bytes())
    content[-1] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    for command in ("inspect", "verify", "card"):
        assert main([command, str(tmp_path / "a.safetensors")]) == 1
        assert (
            capsys.readouterr().err
            == "The artifact is damaged: its seal is broken. Take another copy of it.\n"
        )
    assert main(["inspect", str(tmp_path / "b.safetensors")]) == 1
    assert "There is no artifact at" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["mode=baseline"], ["trainer.strategy=fsdp", "trainer.devices=2"]])
def test_run_without_a_whole_scaffold_refuses_artifact(command, words):
    ran = command("model=mlp", "data=digits", "artifact=true", *words)
    assert ran.returncode == 1 and "artifact=true saves a model on one frozen scaffold" in ran.stderr
