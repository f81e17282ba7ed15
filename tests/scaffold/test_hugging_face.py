"""Models of Hugging Face on a scaffold: tied embeddings, resizing, saving."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import fused_as
from lottalora.scaffold import merge
from lottalora.scaffold import paths_taken
from lottalora.scaffold import unmerge
from lottalora.scaffold import verify
from lottalora.scaffold import wrap

transformers = pytest.importorskip("transformers")

X = torch.randint(0, 19, (2, 5), generator=torch.Generator().manual_seed(0))
FROZEN = {"freeze": ["transformer.wte"], "keep": ["transformer.wpe"]}
ADAPTED = {"compose": ["*"]}
KEPT = {"keep": [nn.Embedding]}


class Net(transformers.GPT2LMHeadModel):
    """A GPT-2 with tied embedding and head, which may wrap itself."""

    places: dict = {}

    def __init__(self, config):
        super().__init__(config)
        if self.places:
            wrap(self, Scaffold(rank=2, seed=1), **self.places)


class Adapted(Net):
    places = ADAPTED


def build(cls=Net, **sizes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "n_embd": 16, "n_layer": 1, "n_head": 2} | sizes
    return cls(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()


def wrapped(places, **options):
    net = build()
    wrap(net, Scaffold(rank=2, seed=1, B_init="kaiming", **options), **places)
    return net


def logits(net):
    with torch.no_grad():
        return net(X).logits


@pytest.mark.parametrize("family", ["normal", "learned"])
@pytest.mark.parametrize("places", [FROZEN, ADAPTED, KEPT], ids=["frozen", "adapted", "kept"])
def test_weights_are_tied_again_and_nothing_changes(places, family):
    net = wrapped(places, family=family)
    before, state, trained = logits(net), list(net.state_dict()), {n for n, _ in net.named_parameters()}
    net.tie_weights()
    assert torch.equal(logits(net), before) and verify(net) == []
    assert list(net.state_dict()) == state and {n for n, _ in net.named_parameters()} == trained


def test_tied_adapter_is_one_after_tying_again():
    net = wrapped(ADAPTED)
    table = net.transformer.wte.composed_weight
    net.lm_head.B = nn.Parameter(torch.zeros(19, 2))  # untied by hand
    net.tie_weights()
    assert all(getattr(net.lm_head, name) is getattr(table, name) for name in ("A", "B", "beta"))


@pytest.mark.parametrize("places", [FROZEN, ADAPTED], ids=["frozen", "adapted"])
def test_resizing_what_is_on_the_scaffold_is_refused_by_name_and_changes_nothing(places):
    net = wrapped(places)
    before = logits(net)
    for model in (net, net.transformer, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        with pytest.raises(ValueError, match="wte.*call resize_token_embeddings before wrap") as error:
            model.resize_token_embeddings(23)
        assert "\n" not in str(error.value)
        assert model.resize_token_embeddings(19) is model.get_input_embeddings()
    assert torch.equal(logits(net), before)


def test_kept_embeddings_are_resized():
    net = wrapped(KEPT)
    before = logits(net)
    net.resize_token_embeddings(23, mean_resizing=False)
    torch.testing.assert_close(logits(net)[..., :19], before)


def test_untied_head_is_refused_before_its_embedding_is_resized():
    net = build(tie_word_embeddings=False)
    wrap(net, Scaffold(rank=2), keep=[nn.Embedding])
    with pytest.raises(ValueError, match="'lm_head' would get other rows"):
        net.resize_token_embeddings(23)
    assert net.transformer.wte.num_embeddings == 19


def test_merged_model_ties_and_resizes_as_an_ordinary_one():
    net = wrapped(ADAPTED)
    expected = logits(net)
    merged = merge(net)
    net.tie_weights()
    assert net.lm_head.weight is net.transformer.wte.weight
    torch.testing.assert_close(logits(net), expected)
    larger = copy.deepcopy(net)
    larger.resize_token_embeddings(23, mean_resizing=False)
    torch.testing.assert_close(logits(larger)[..., :19], expected)
    unmerge(net, merged)
    net.tie_weights()
    assert torch.equal(logits(net), expected)
    with pytest.raises(ValueError, match="would get other rows"):
        net.resize_token_embeddings(23)


def test_tied_adapters_are_saved_once_and_come_back(tmp_path):
    net = build(Adapted)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    net.save_pretrained(tmp_path)
    other = Adapted.from_pretrained(tmp_path).eval()
    assert torch.equal(logits(other), logits(net))
    assert other.lm_head.B is other.transformer.wte.composed_weight.B


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
ATTENTIONS = {  # class, sizes, input, layers that read an input with others
    "vit": (transformers.ViTModel, {"image_size": 8, "patch_size": 4}, torch.ones(2, 3, 8, 8).double(), 6),
    "llama": (transformers.LlamaModel, {"num_key_value_heads": 2, "vocab_size": 19}, X, 10),
    "distilbert": (
        transformers.DistilBertModel,
        {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "vocab_size": 19},
        X,
        6,
    ),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_layers_that_read_one_input_are_computed_together_with_the_same_gradients(name):
    cls, sizes, x, together = ATTENTIONS[name]
    torch.manual_seed(0)
    net = cls(cls.config_class(**(SMALL if "dim" not in sizes else {}), **sizes)).double().eval()
    keep = ["*position_embeddings", "*cls_token"] if name == "vit" else [nn.Embedding]
    account = wrap(net, Scaffold(rank=2, B_init="kaiming"), keep=keep)
    results = []
    for mode in ("off", "auto"):
        net.zero_grad()
        with fused_as(mode):
            h = net(x).last_hidden_state
            h.square().sum().backward()
        results.append([h, *(p.grad for p in net.parameters() if p.grad is not None)])
    assert paths_taken(net)["stack"] == account.table(net).count("  stack") == together
    torch.testing.assert_close(*results)
