"""The Vision Transformer: the paper's counts, torchvision's weights under our names, files that are wrong."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from lottalora.build import build
from lottalora.models.torchvision_vit import PUBLISHED
from lottalora.models.torchvision_vit import fitted
from lottalora.models.torchvision_vit import found
from lottalora.models.torchvision_vit import load_learned
from lottalora.models.vit import BASE
from lottalora.models.vit import ViT
from lottalora.models.vit import vit
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap

SMALL = {"width": 48, "layers": 2, "heads": 3, "mlp": 96, "patch": 8}
FULL = 85_877_094
COUNTS = {
    ("vit", "mode=baseline"): FULL,
    ("vit_random", "mode=baseline"): FULL,
    ("vit", "rank=1"): 1_025_454,
    ("vit", "rank=4"): 1_523_118,
    ("vit", "rank=8"): 2_186_670,
    ("vit", "rank=32"): 6_167_982,
    ("vit", "rank=64"): 11_476_398,
    ("vit_random", "rank=16"): 3_513_774,
    ("vit_random", "rank=16 adapter.layer_norm=true"): 3_513_774 + 12 * 2 * (4 * 768 + 3072 + 768),
    ("vit", "rank=8 mode=lora"): 2_186_670 - 72,  # no β
}


@pytest.fixture(scope="module")
def theirs():
    """torchvision's module, small, with no weight at 0."""
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(32, SMALL["patch"], SMALL["layers"], SMALL["heads"], SMALL["width"], SMALL["mlp"])
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


def ours(side: int = 32) -> ViT:
    return ViT((3, side, side), 1000, **SMALL).eval()


def saved(folder: Path, state: object) -> Path:
    torch.save(state, folder / "weights.pth")
    return folder / "weights.pth"


def in_the_published_spelling(state: dict) -> dict:
    return {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in state.items()
    }


@pytest.mark.parametrize(("model", "words"), COUNTS)
def test_as_many_parameters_are_trained_as_the_paper_says(composed, model, words):
    from hydra.utils import instantiate

    cfg = composed(f"model={model}", "data=flowers102", *words.split())
    spec = instantiate(cfg.data).spec
    with torch.device("meta"):
        net, account = build(cfg, spec)
    assert account.trainable == COUNTS[model, words] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL


@pytest.mark.parametrize("spelling", [dict, in_the_published_spelling])
def test_the_converted_net_computes_what_torchvisions_does(tmp_path, theirs, spelling):
    net, x = ours(), torch.randn(4, 3, 32, 32)
    load_learned(net.body, saved(tmp_path, spelling(theirs.state_dict())))
    net.head.load_state_dict(theirs.heads.head.state_dict())
    expected = theirs(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)


def test_positions_of_another_image_size_are_those_that_torchvision_interpolates(theirs):
    from torchvision.models.vision_transformer import interpolate_embeddings

    positions = theirs.state_dict()["encoder.pos_embedding"]  # 4 × 4 patches
    resized = interpolate_embeddings(48, SMALL["patch"], theirs.state_dict())["encoder.pos_embedding"]
    torch.testing.assert_close(fitted(positions, tokens=37), resized)


def test_weights_of_another_image_size_are_loaded_with_their_positions_fitted(tmp_path, theirs):
    net = ours(side=48)
    load_learned(net.body, saved(tmp_path, theirs.state_dict()))
    assert net.body.embeddings.position_embeddings.shape == (1, 37, 48)
    assert torch.equal(net.body.embeddings.cls_token, theirs.class_token)


def test_a_scaffold_replaces_the_projections_and_leaves_what_else_was_learned(tmp_path, theirs):
    net, state = ours(), theirs.state_dict()
    load_learned(net.body, saved(tmp_path, state))
    wrap(net, Scaffold(rank=2, bias="frozen"), keep=["body.embeddings", "head"])
    layer, name = net.body.layers[0], "encoder.layers.encoder_layer_0"
    learned = state[f"{name}.self_attention.in_proj_weight"][:48]
    assert not torch.equal(layer.attention.q_proj.W_seed, learned)
    assert layer.attention.q_proj.W_seed.std().item() == pytest.approx(48**-0.5, rel=0.1)
    assert torch.equal(layer.attention.q_proj.bias, state[f"{name}.self_attention.in_proj_bias"][:48])
    assert torch.equal(layer.layernorm_before.weight, state[f"{name}.ln_1.weight"])
    assert torch.equal(net.body.embeddings.patch_embeddings.projection.weight, state["conv_proj.weight"])


def test_ordinary_lora_begins_as_the_learned_net(tmp_path, theirs):
    net, x = ours(), torch.randn(2, 3, 32, 32)
    load_learned(net.body, saved(tmp_path, theirs.state_dict()))
    before = net(x)
    lora = Scaffold(rank=2, family="learned", train_beta=False, bias="frozen")
    wrap(net, lora, keep=["body.embeddings", "head"])
    torch.testing.assert_close(net(x), before)


def without(state: dict) -> dict:
    return {name: value for name, value in state.items() if name != "class_token"}


def with_a_stranger(state: dict) -> dict:
    return state | {"encoder.gate": torch.zeros(1)}


def narrower(state: dict) -> dict:
    return state | {"encoder.ln.weight": torch.zeros(47)}


def in_no_square(state: dict) -> dict:
    return state | {"encoder.pos_embedding": torch.zeros(1, 16, 48)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without, r"holds no weights of this ViT: missing: class_token\. model=vit_random starts"),
        (with_a_stranger, r"unexpected: encoder\.gate\."),
        (narrower, r"of another shape: encoder\.ln\.weight \(47,\) where \(48,\) belongs"),
        (in_no_square, r"of another shape: encoder\.pos_embedding \(1, 16, 48\) where \(1, 17, 48\) belongs"),
        (lambda _: {}, r"missing: class_token, conv_proj\.bias, conv_proj\.weight and 27 more"),
        (list, r"weights\.pth is no state dict of torchvision's vit_b_16 \(AttributeError\)"),
    ],
)
def test_a_wrong_checkpoint_is_refused_with_what_is_wrong_and_the_net_stays_as_it_was(
    tmp_path, theirs, change, said
):
    net = ours()
    before = net.body.layers[0].mlp.fc1.weight.clone()
    with pytest.raises(ValueError, match=said):
        load_learned(net.body, saved(tmp_path, change(theirs.state_dict())))
    assert torch.equal(net.body.layers[0].mlp.fc1.weight, before)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "weights.pth").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="is no state dict of torchvision's vit_b_16"):
        load_learned(ours().body, tmp_path / "weights.pth")


def test_a_file_is_found_if_its_content_is_what_its_name_promises(tmp_path):
    path = tmp_path / f"vit-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    path.write_bytes(b"weights")
    assert found(path) == path
    path.write_bytes(b"weight")
    with pytest.raises(ValueError, match="is damaged: its SHA-256 begins"):
        found(path)


def test_a_file_whose_name_does_not_say_which_weights_it_holds_is_refused_with_a_name_that_does(tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"weights")
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    with pytest.raises(ValueError, match=f"Call it mine-{begins}.pth"):
        found(tmp_path / "mine.pth")


def test_weights_that_cannot_be_had_are_refused_with_the_model_that_needs_none(tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    path = tmp_path / "weights" / "vit_b_16-c867db91.pth"
    with pytest.raises(FileNotFoundError, match="are not at .* could not be downloaded") as refused:
        found(path)
    assert f"Put {PUBLISHED}vit_b_16-c867db91.pth there; model=vit_random" in str(refused.value)
    assert not path.exists()


def test_the_default_weights_are_those_that_torchvision_publishes(composed):
    from torchvision.models import ViT_B_16_Weights

    name = composed("model=vit", "data=flowers102").model.net.weights
    assert ViT_B_16_Weights.IMAGENET1K_V1.url == PUBLISHED + name


def test_learned_weights_are_refused_for_another_size_than_theirs(composed):
    size = composed("model=vit", "data=flowers102").model.sizes.tiny
    with pytest.raises(ValueError, match="model.size=base, not of width 192 .* model=vit_random"):
        vit((3, 224, 224), 102, **size, weights="vit_b_16-c867db91.pth", root="nowhere")


def test_without_weights_and_on_the_meta_device_no_file_is_needed():
    assert vit((3, 32, 32), 102, **SMALL, weights=None, root="nowhere").head.out_features == 102
    with torch.device("meta"):
        vit((3, 224, 224), 102, **BASE, weights="vit_b_16-c867db91.pth", root="nowhere")


def test_an_image_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(ValueError, match="data.image_size=100 does not divide into patches of 16 pixels"):
        vit((3, 100, 100), 102, **BASE, weights=None, root="nowhere")


def test_where_the_weights_lie_is_not_part_of_a_run(composed):
    from lottalora.config.identity import digest
    from lottalora.config.identity import portable

    words = ("model=vit", "data=flowers102")
    assert digest(composed(*words, "paths.data=here")) == digest(composed(*words, "paths.data=there"))
    assert digest(composed(*words, "model.net.weights=other.pth")) != digest(composed(*words))
    assert "here" not in str(portable(composed(*words, "paths.data=here")))
