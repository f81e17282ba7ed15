"""DistilBERT: what transformers computes under the same names, counts, and learned weights from a file."""

import hashlib

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from lottalora.build import account_of
from lottalora.build import build
from lottalora.data.batches.batch import Texts
from lottalora.data.imdb import IMDB
from lottalora.models.distilbert import DistilBert
from lottalora.models.distilbert import attend
from lottalora.models.distilbert import distilbert
from lottalora.models.distilbert import load_learned
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import shard
from lottalora.scaffold import wrap
from tests import commands
from tests.suite.processes import joined_results

SMALL = {"width": 32, "layers": 2, "heads": 4, "ffn": 64}
PLAIN = {"dropout": 0.0, "attention_dropout": 0.0}
FULL = 10_315_010  # the paper says 20 more
TRAINABLE = {
    1: 6_673,
    2: 12_817,
    4: 25_105,
    8: 49_681,
    16: 98_833,
    32: 197_137,
}  # of Table 21, 3 of them unexplained


@pytest.fixture(scope="module")
def theirs():
    """transformers' module, small, with no weight at 0."""
    from transformers import DistilBertConfig
    from transformers import DistilBertForSequenceClassification

    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=50, max_position_embeddings=12, dim=32, n_layers=2, n_heads=4, hidden_dim=64
    )
    net = DistilBertForSequenceClassification(config)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def ours(layers: int = 2) -> DistilBert:
    torch.manual_seed(1)
    return DistilBert((12, 50), 2, **(SMALL | {"layers": layers}), **PLAIN).eval()


def batch() -> Texts:
    """Texts of 9, 4 and 1 tokens; what is noted behind the end of a text is not 0."""
    torch.manual_seed(2)
    return Texts(torch.randint(1, 50, (3, 9)), torch.tensor([9, 4, 1]))


def saved(folder, net, rename=lambda name: name):
    from safetensors.torch import save_file

    state = {rename(name): value.contiguous() for name, value in net.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize("rename", [str, lambda name: name.removeprefix("distilbert.")])
def test_a_net_with_the_weights_of_a_file_computes_what_transformers_does(tmp_path, theirs, rename):
    net, x = ours(), batch()
    load_learned(net, saved(tmp_path, theirs, rename))
    mask = (torch.arange(9) < x.lengths[:, None]).long()
    cls = theirs.distilbert(x.tokens, attention_mask=mask).last_hidden_state[:, 0]
    torch.testing.assert_close(net(x), net.head(cls), rtol=1e-4, atol=1e-5)


def test_the_head_is_not_taken_from_the_file(tmp_path, theirs):
    net = ours()
    before = net.head.weight.clone()
    load_learned(net, saved(tmp_path, theirs))
    assert torch.equal(net.head.weight, before)


@torch.no_grad()
def test_a_text_is_judged_alike_alone_and_beside_longer_ones():
    net, x = ours(), batch()
    for i, length in enumerate(x.lengths.tolist()):
        alone = Texts(x.tokens[i : i + 1, :length], x.lengths[i : i + 1])
        torch.testing.assert_close(net(alone), net(x)[i : i + 1])


def test_a_net_whose_frozen_rows_are_shared_out_among_processes_computes_the_same():
    def wrapped(drawn):
        net = ours()
        wrap(net, Scaffold(rank=2, seed=3), keep=["head"], freeze=["embeddings", "*.ffn"], drawn=drawn)
        return net

    def work():
        net = wrapped(drawn=False)
        shard(net, init_device_mesh("cpu", (2,)))
        return net(batch()).detach()

    for logits in joined_results(work):
        torch.testing.assert_close(logits, wrapped(drawn=True)(batch()).detach())


def test_attention_with_dropout_is_on_average_the_one_without():
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 1, 2, 40, 8)
    mask = torch.arange(40)[None, None, None] < 33
    dropped = torch.stack([attend(q, k, v, mask, 0.2) for _ in range(400)])
    torch.testing.assert_close(dropped.mean(0), attend(q, k, v, mask, 0.0), rtol=0, atol=0.15)
    assert not torch.equal(dropped[0], dropped[1])


@pytest.mark.parametrize("rank", TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_table_21_says_but_for_three(composed, rank):
    with torch.device("meta"):
        net, account = build(composed("model=distilbert", "data=imdb", f"rank={rank}"), IMDB.spec)
    assert account.trainable == TRAINABLE[rank] - 3 == sum(p.numel() for p in net.parameters())
    assert account.trainable == 6_144 * rank + 12 + 514
    assert account.full == FULL


def test_a_baseline_trains_every_parameter(composed):
    account = account_of(composed("model=distilbert", "data=imdb", "mode=baseline"))
    assert account.trainable == account.full == FULL


def test_lora_on_learned_weights_trains_no_beta(composed):
    words = ("model=distilbert", "data=imdb", "mode=lora", "model.size=pretrained", "rank=8", "alpha=8")
    account = account_of(composed(*words))
    assert account.trainable == 6 * 4 * 8 * 2 * 768 + 2 * 769
    assert account.full == 66_362_880 + 2 * 769  # distilbert-base-uncased and the head


def test_the_recipe_is_the_papers_protocol(composed):
    cfg = composed("model=distilbert", "data=imdb", "rank=4")
    assert cfg.recipe.name == "paper"
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.schedule.warmup) == (5e-4, 0.01, 0.1)
    assert (cfg.data.batch_size, cfg.data.max_length) == (32, 512)
    assert (cfg.alpha, cfg.scaffold.alpha, cfg.adapter.dropout, cfg.model.net.dropout) == (8, 8, 0.05, 0.1)
    trainer = cfg.trainer
    assert (trainer.epochs, trainer.clip, trainer.patience, trainer.min_delta) == (30, 1.0, 7, 1e-4)


def test_the_learned_weights_come_from_the_folder_of_their_name(tmp_path, theirs):
    (tmp_path / "small").mkdir()
    saved(tmp_path / "small", theirs)
    net = distilbert((12, 50), 2, **SMALL, **PLAIN, weights="small", root=str(tmp_path))
    learned = theirs.state_dict()["distilbert.transformer.layer.1.ffn.lin2.weight"]
    assert torch.equal(net.transformer["layer"][1].ffn["lin2"].weight, learned)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_file_of_another_network_is_refused(tmp_path, theirs, layers):
    with pytest.raises(ValueError, match="model.safetensors holds no weights of this DistilBERT"):
        load_learned(ours(layers), saved(tmp_path, theirs))


def test_a_damaged_file_of_weights_is_refused(tmp_path, theirs):
    path = saved(tmp_path, theirs)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match="is damaged or no safetensors file .* model.size=base starts at rand"
    ):
        load_learned(ours(), path)


def test_missing_learned_weights_are_refused_in_one_line(command, tmp_path):
    words = ("model=distilbert", "data=imdb", "data.sample=true", "mode=lora", "model.size=pretrained")
    finished = command(*words, f"paths.data={tmp_path}")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(
        f"error: The learned distilbert-base-uncased is not at {tmp_path}/weights/distilbert-base-uncased"
    )
    assert line.endswith("model.size=base starts at random and needs no file.")


def test_a_run_that_is_done_with_other_learned_weights_is_refused_and_its_row_names_them(command, tmp_path):
    size = {"width": 8, "layers": 1, "heads": 2, "ffn": 8}
    for name in ("first", "second"):
        (tmp_path / name / "mine").mkdir(parents=True)
        saved(tmp_path / name / "mine", DistilBert((512, 30522), 2, **size, **PLAIN))
    words = ["model=distilbert", "data=imdb", "data.sample=true", "data.max_length=32", "mode=lora", "rank=1"]
    words += ["trainer.epochs=1", "model.sizes.base.weights=mine"]
    words += [f"model.sizes.base.{key}={value}" for key, value in size.items()]
    assert command(*words, "model.net.root=first").returncode == 0
    (row,), _ = rows.read_all(tmp_path / "results")
    content = (tmp_path / "first" / "mine" / "model.safetensors").read_bytes()
    assert row["weights_fingerprint"] == hashlib.sha256(content).hexdigest()
    for flags in ((), ("-m",)):
        done = command(*flags, *words, "model.net.root=second")
        assert done.returncode == 1
        assert "is done, with other learned weights than second/mine/model.safetensors" in done.stderr
        assert "Traceback" not in done.stderr
    root = tmp_path / "second"
    sent = commands.run(
        "-m", "lottalora", "submit", *words, f"model.net.root={root}", "--dry-run", cwd=tmp_path
    )
    assert sent.returncode == 1
    assert f"is done, with other learned weights than {root}/mine/model.safetensors" in sent.stderr
