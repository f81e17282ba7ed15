"""GPT: counted as in the paper, built where it is needed, its loss the plain one, every mode trained."""

import json
import math
import sys
import time
from functools import partial

import pytest
import torch
from hydra import initialize_config_dir
from torch.nn import functional as F

from lottalora.build import account_of
from lottalora.build import build
from lottalora.config.identity import digest_config
from lottalora.data.batches.packed import Packed
from lottalora.data.batches.tokens import TokenSplits
from lottalora.data.text import Text
from lottalora.models import linear_cross_entropy as module
from lottalora.models.gpt import SquaredReLU
from lottalora.models.linear_cross_entropy import linear_cross_entropy
from lottalora.results import rows
from lottalora.scaffold import draw
from lottalora.scaffold import resample
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.sweeps.cells import cells_of_overrides
from lottalora.tasks.language import Language
from lottalora.tasks.schedules import PerStep
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.fit import score
from tests import commands
from tests.suite.conftest import ROOT

FULL = {
    "3M": 2_368_320,
    "30M": 29_990_784,
    "300M": 315_405_312,
    "600M": 693_370_944,
    "900M": 1_212_039_296,
}
EMBEDDING = {"3M": 2_048_000, "30M": 12_288_000, "300M": 32_768_000, "600M": 43_008_000, "900M": 53_248_000}
INTERNAL = {  # Table 12: without the tied embedding
    "3M": (3_096, 6_168, 12_312, 24_600),
    "30M": (30_760, 61_480, 122_920, 245_800),
    "300M": (180_312, 360_536, 720_984, 1_441_880),
    "600M": (322_680, 645_240, 1_290_360, 2_580_600),
    "900M": (452_744, 905_352, 1_810_568, 3_621_000),
}
RANKS = (1, 2, 4, 8)
CASES = [(size, rank, count) for size in FULL for rank, count in zip(RANKS, INTERNAL[size], strict=True)]
TINY = {"width": 16, "layers": 2, "heads": 2, "mlp": 24}


@pytest.fixture
def net_of(composed):
    """A tiny net, as the words of a command line build it."""

    def make(*words: str):
        torch.manual_seed(0)
        cfg = composed("model=gpt", "data=text", *words)
        cfg.model.sizes["3M"] = TINY
        return build(cfg, Text.spec)[0]

    return make


def blocks(count=2, length=9):
    tokens = torch.randint(0, 32_000, (count, length + 1), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize(("size", "rank", "count"), CASES)
def test_a_scaffold_trains_as_many_parameters_as_table_12_says(composed, size, rank, count):
    account = account_of(composed("model=gpt", "data=wikitext103", f"model.size={size}", f"rank={rank}"))
    assert account.internal_trainable == count
    assert account.trainable == count + EMBEDDING[size]
    assert account.full == FULL[size]


@pytest.mark.parametrize("size", FULL)
def test_a_baseline_trains_every_parameter_and_the_embedding_once(composed, size):
    account = account_of(composed("model=gpt", "data=wikitext103", f"model.size={size}", "mode=baseline"))
    assert account.trainable == account.full == FULL[size]


@pytest.mark.parametrize(
    ("words", "matrices", "frozen", "adapters", "dense"),
    [
        (["golf", "model.place=all", "init=orthogonal", "rank=32"], 66, 25_952_256, 2_703_360, 0),
        (["golf_mlp", "model.place=mlp", "rank=160"], 24, 18_874_368, 12 * 655_360, 9_437_184),
    ],
)
def test_golf_has_the_weights_of_its_public_entry(composed, words, matrices, frozen, adapters, dense):
    given = ["data.vocabulary=1024", "adapter.train_beta=false", f"model.size={words[0]}", *words[1:]]
    account = account_of(composed("model=gpt", "data=text", *given))
    adapted = [entry for entry in account.entries if entry.place == "adapt"]
    assert len(adapted) == matrices
    assert sum(entry.frozen for entry in adapted) == frozen
    assert sum(entry.trained for entry in adapted) == adapters
    assert account.trainable == adapters + dense + 1024 * 512


def test_mlp_without_a_gate_is_two_matrices_with_a_squared_relu():
    net = SquaredReLU(3, 5)
    x, up, down = torch.randn(2, 3), net.up_proj.weight, net.down_proj.weight
    torch.testing.assert_close(net(x), (x @ up.T).clamp(min=0) ** 2 @ down.T)


def test_900m_parameters_are_counted_in_ten_seconds(composed):
    cfg = composed("model=gpt", "data=wikitext103", "model.size=900M")
    began = time.process_time()
    account_of(cfg)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("place", "adapted", "frozen", "kept"),
    [
        ("attention", "qkvo", "gate up down", ""),
        ("all", "qkvo gate up down", "", ""),
        ("mlp", "gate up down", "", "qkvo"),
        ("mlp_alone", "gate up down", "qkvo", ""),
        ("values", "v o", "q k gate up down", ""),
    ],
)
def test_a_place_says_what_is_adapted_frozen_and_dense(composed, place, adapted, frozen, kept):
    account = account_of(composed("model=gpt", "data=text", f"model.place={place}"))
    matrices = {"adapt": set(), "freeze": set(), "keep": set()}
    for entry in account.entries:
        matrices[entry.place].add(entry.name.split(".")[-2].removesuffix("_proj").replace("lm_head", "head"))

    def names(words):
        return {name for word in words.split() for name in (word if word == "qkvo" else [word])}

    assert matrices == {
        "adapt": names(adapted),
        "freeze": names(frozen),
        "keep": names(kept) | {"embed_tokens"},
    }
    assert account.vectors_trained == 0  # norms


def test_every_choice_of_matrices_trains_as_many_numbers():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cells, composer, _ = cells_of_overrides(["sweeps=which_matrices"])
        accounts = [account_of(composer.config(cell.overrides)[0]) for cell in cells]
    betas = {"attention": 24, "mlp_alone": 18, "all": 42, "values": 12}  # matrices of six layers
    *adapted, head = (account.counts()["internal_trainable"] for account in accounts)
    assert [count - number for count, number in zip(adapted, betas.values(), strict=True)] == [46080] * 4
    assert head == 24


def test_an_unknown_place_is_refused_with_the_known_ones(command):
    finished = command("model=gpt", "data=text", "model.place=attentoin", "dry_run=json")
    assert (
        finished.stderr
        == "error: Unknown model.place 'attentoin'. Known: attention, all, mlp, mlp_alone, values.\n"
    )


def test_a_dense_net_starts_as_transformers_start_it_and_computes_the_same(net_of):
    from transformers import LlamaForCausalLM

    net = net_of("mode=baseline").eval()
    theirs = LlamaForCausalLM(net.lm.config).eval()
    assert theirs.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.2)
    for name, value in net.lm.named_parameters():
        start = theirs.get_parameter(name)
        assert value.std(correction=0).item() == pytest.approx(start.std(correction=0).item(), rel=0.2), name
        assert value.mean().item() == pytest.approx(start.mean().item(), abs=5e-3), name
    theirs.load_state_dict(net.lm.state_dict())
    tokens, target = blocks()
    torch.testing.assert_close(net(tokens), theirs(tokens).logits)
    plain = theirs(tokens, labels=target, shift_labels=target.contiguous()).loss
    torch.testing.assert_close(net.loss(tokens, target), plain)


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_the_head_is_the_embedding_after_the_net_has_its_values(net_of, mode):
    net = net_of(f"mode={mode}")
    assert net.lm.lm_head.weight is net.lm.model.embed_tokens.weight
    assert not any(value.is_meta for value in [*net.parameters(), *net.buffers()])


def test_the_scaffold_is_what_its_seed_draws_and_the_embedding_is_drawn_narrow(net_of):
    net = net_of("rank=2")
    layers = [layer for layer in net.modules() if isinstance(layer, LottaLayer)]
    assert len(layers) == 14
    assert all(torch.equal(layer.W_seed, draw(layer.source)) for layer in layers)
    assert net.lm.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert net.lm.model.norm.weight.tolist() == [1] * 16
    assert "lm.model.norm.weight" not in dict(net.named_parameters())


@pytest.mark.parametrize(
    "words",
    [
        ["mode=scaffold", "adapter.rslora=true", "adapter.dora=true"],
        ["mode=zero"],
        ["mode=head"],
        ["mode=lora"],
        ["mode=resample_epoch"],
        ["mode=scaffold", "model.place=mlp"],
    ],
)
def test_every_mode_gives_a_gradient_to_all_that_it_trains(net_of, words):
    net = net_of(*words, "adapter.B_init=kaiming")
    net.loss(*blocks()).backward()
    without = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    # β of a scaffold of zeros has nothing to act on
    assert [name for name in without if not (words == ["mode=zero"] and name.endswith("beta"))] == []


def test_a_scaffold_is_drawn_anew_each_epoch(net_of):
    net = net_of("mode=resample_epoch")
    before = net.lm.model.layers[0].self_attn.q_proj.W_seed.clone()
    resample(net, 4)
    assert not torch.equal(net.lm.model.layers[0].self_attn.q_proj.W_seed, before)
    assert math.isfinite(net.loss(*blocks()).item())


def test_recomputing_changes_no_digest(typed):
    words = ("model=gpt", "data=text")
    assert digest_config(typed(*words)) == digest_config(typed(*words, "model.net.recompute=true"))


def test_recomputing_changes_no_gradient(net_of):
    gradients = []
    for recompute in ("false", "true"):
        net = net_of("rank=2", "adapter.B_init=kaiming", f"model.net.recompute={recompute}").train()
        net.loss(*blocks()).backward()
        gradients.append({name: value.grad for name, value in net.named_parameters()})
    assert net.lm.is_gradient_checkpointing
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def head(count=23, width=8, entries=50, dtype=torch.float32):
    torch.manual_seed(0)
    h = torch.randn(count, width, dtype=dtype, requires_grad=True)
    W = torch.randn(entries, width, dtype=dtype, requires_grad=True)
    return h, W, torch.randint(0, entries, (count,))


@pytest.mark.parametrize("rows_at_once", [1, 7, 23, 100])
def test_the_loss_of_the_head_and_its_gradients_are_the_plain_ones(monkeypatch, rows_at_once):
    h, W, target = head()
    monkeypatch.setitem(module.LOGITS_AT_ONCE, "cpu", rows_at_once * len(W))
    ours, theirs = linear_cross_entropy(h, W, target), F.cross_entropy(h @ W.T, target)
    torch.testing.assert_close(ours, theirs)
    for mine, plain in zip(
        torch.autograd.grad(3 * ours, (h, W)), torch.autograd.grad(3 * theirs, (h, W)), strict=True
    ):
        torch.testing.assert_close(mine, plain)


def test_the_gradients_of_the_head_are_those_of_its_loss():
    h, W, target = head(count=5, width=3, entries=7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, W: linear_cross_entropy(h, W, target), (h, W))


def test_the_loss_of_the_head_stands_logits_of_any_size():
    h, W, target = head()
    loss = linear_cross_entropy(100 * h, W, target)
    torch.testing.assert_close(loss, F.cross_entropy(100 * h @ W.T, target))
    assert loss > 88  # where the exponential of a float32 ends


def test_a_frozen_head_and_an_evaluation_are_given_no_gradient():
    h, W, target = head()
    loss = linear_cross_entropy(h, W.detach(), target)
    assert torch.autograd.grad(loss, h)[0].shape == h.shape
    with torch.no_grad():
        assert not linear_cross_entropy(h, W, target).requires_grad


def test_under_autocast_the_products_are_of_its_type():
    h, W, target = head()
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = linear_cross_entropy(h, W, target), F.cross_entropy(h @ W.T, target)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(*(torch.autograd.grad(x, W)[0] for x in (ours, theirs)), rtol=0.1, atol=2e-3)


PEAK = """
import re, torch
from hydra import compose, initialize_config_dir
from lottalora.data.text import Text
from lottalora.build import build

def memory(name):  # bytes
    return 1024 * int(re.search(rf"{name}:\\s+(\\d+)", open("/proc/self/status").read())[1])

torch.set_num_threads(1)
with initialize_config_dir(CONF, version_base="1.3"):
    words = ["model=gpt", "data=text", MODE, "model.size="]
    build(compose("config", overrides=[*words[:-1], "model.size=3M"]), Text.spec)
    cfg = compose("config", overrides=[*words[:-1], "model.size=30M"])
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = memory("VmRSS")
    net, _ = build(cfg, Text.spec)
    kept = {id(t): t.nbytes for t in [*net.parameters(), *net.buffers()]}
    print((memory("VmHWM") - before) / sum(kept.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("mode", ["scaffold", "baseline"])
def test_a_net_is_built_in_little_more_than_the_memory_of_its_weights(mode):

    text = PEAK.replace("CONF", repr(str(ROOT / "conf"))).replace("MODE", repr(f"mode={mode}"))
    finished = commands.run("-c", text)
    assert finished.returncode == 0, finished.stderr
    assert float(finished.stdout) < 1.2


def splits():
    """Two short sentences over and over, as tokens, without a file."""
    tokens = torch.tensor([5, 6, 7, 8, 9, 10, 11, 5, 6, 12]).repeat(400).numpy()
    return TokenSplits(
        train=Packed(tokens, 4 * len(tokens)),
        validation=Packed(tokens[:600], 2400),
        test=Packed(tokens[:700], 2800),
        batch_size=2,
    )


def test_a_task_learns_and_measures_all_of_its_parts(net_of, tmp_path):
    task = Language(net_of("rank=4"), Text.spec, partial(torch.optim.AdamW, lr=0.02), PerStep(2, "cosine"))
    trained = fit(
        task,
        splits(),
        TrainerSettings(epochs=2, accelerator="cpu"),
        seed=1,
        higher_is_better=False,
        folder=tmp_path,
    )
    loss = score(trained.trainer, task, splits())
    further = task.further_scores()
    assert loss < 6 < math.log(32_000)
    assert further["perplexity"] == pytest.approx(math.exp(loss))
    assert further["validation_perplexity"] == pytest.approx(math.exp(trained.validation_score))
    assert further["bits_per_byte"] == pytest.approx(loss * 699 / (2800 * math.log(2)))
    assert 0 < further["train_loss"] < 10
    plain, blocks_of_test = 0.0, splits().test_batches()
    with torch.no_grad():
        for tokens, target in blocks_of_test:
            plain += F.cross_entropy(task.net(tokens).flatten(0, 1), target.flatten(), reduction="sum").item()
    assert loss == pytest.approx(plain / 699, rel=1e-5)


def test_the_recipe_is_the_papers_protocol(composed):
    cfg = composed("model=gpt", "data=wikitext103")
    assert (cfg.recipe.name, cfg.alpha, cfg.data.batch_size) == ("paper", 16, 32)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay) == (1e-4, 0.1)
    assert (cfg.schedule.warmup, cfg.schedule.shape, cfg.trainer.epochs) == (200, "cosine", 1)


@pytest.mark.parametrize("data", ["wikitext2", "text"])
def test_the_protocol_of_other_texts_is_the_same_and_not_called_the_papers(composed, data):
    ours, papers = composed("model=gpt", f"data={data}"), composed("model=gpt", "data=wikitext103")
    for section in ("optimizer", "schedule", "trainer"):
        assert ours[section] == papers[section]
    assert ours.recipe.name == "wikitext103"


def test_a_run_on_the_stand_in_leaves_a_row_under_the_name_of_its_text(command, tmp_path):
    words = ("model=gpt", "data=text", "data.sample=true", "data.name=grammar", "data.tokens=2049", "rank=2")
    finished = command(*words, "data.batch_size=4", "optimizer.lr=0.01", "schedule.warmup=1")
    assert finished.returncode == 0, finished.stderr
    (row,), problems = rows.read_all(tmp_path / "results")
    assert problems == []
    assert (row["model"], row["data"], row["metric"], row["alpha"]) == ("gpt", "grammar", "loss", 16)
    assert row["score"] < row["chance"] == math.log(32_000)
    assert row["arms"]["scaffold_removed"] > 0
    assert row["further"]["perplexity"] == pytest.approx(math.exp(row["score"]))
    assert str(tmp_path) not in json.dumps(row["config"])
