"""Exports: what other libraries read of them computes the same as the artifact's net."""

import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lottalora.artifacts.export.hugging_face import distilbert
from lottalora.artifacts.runs import register_models
from lottalora.cli.main import main
from lottalora.data.batches.batch import Texts
from lottalora.scaffold import ARCHITECTURES
from lottalora.scaffold import Scaffold
from lottalora.scaffold import load
from lottalora.scaffold import save
from lottalora.scaffold import wrap

transformers = pytest.importorskip("transformers")
BLOCKS = {"width": 16, "layers": 2, "heads": 2}
MODELS = {  # architecture → its arguments, what of it is kept and what is frozen
    "mlp": ({"in_shape": [1, 8, 8], "out_dim": 10, "hidden": [24, 16], "dropout": 0.1}, ["head"], []),
    "resnet": ({"in_shape": [3, 8, 8], "out_dim": 10, "depth": 20, "shortcut": False}, ["head"], []),
    "vit": (
        {"in_shape": [3, 16, 16], "out_dim": 7, "mlp": 24, "patch": 8, **BLOCKS},
        ["head", "*position_embeddings"],
        ["*patch_embeddings*"],
    ),
    "gpt": (
        {"in_shape": [32], "out_dim": 50, "mlp": 24, "recompute": False, **BLOCKS},
        ["lm.model.embed_tokens"],
        ["*.mlp", "*norm"],
    ),
    "distilbert": (
        {"in_shape": [24, 60], "out_dim": 2, "ffn": 24, "dropout": 0.1, "attention_dropout": 0.1, **BLOCKS},
        ["head"],
        ["embeddings", "*.ffn", "*layer_norm"],
    ),
}
IMAGES, TOKENS = torch.randn(3, 3, 16, 16), torch.randint(1, 50, (3, 9))
LENGTHS = torch.tensor([9, 4, 1])


def saved(name, folder, **settings):
    """An artifact of a small net with trained-looking numbers."""
    register_models()
    arguments, keep, freeze = MODELS[name]
    torch.manual_seed(0)
    net = ARCHITECTURES[name].build(**arguments)
    wrap(net, Scaffold(rank=3, alpha=6.0, seed=7, **settings), keep=keep, freeze=freeze)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    path = folder / f"{name}.safetensors"
    save(net, path, architecture=(name, arguments))
    return path


def exported(name, target, folder):
    path, out = saved(name, folder), folder / target
    assert main(["export", str(path), str(out), "--to", target]) == 0
    return load(path), out


def close(found, expected, within):
    torch.testing.assert_close(found, expected, rtol=0, atol=within * expected.abs().max().item())


@torch.no_grad()
def ours(net, name):
    if name == "distilbert":
        return net(Texts(TOKENS, LENGTHS))
    return net(TOKENS if name == "gpt" else IMAGES)


@torch.no_grad()
def theirs(model, name):
    if name == "distilbert":
        mask = torch.arange(9) < LENGTHS[:, None]
        return model(input_ids=TOKENS, attention_mask=mask.long()).logits
    return model(TOKENS if name == "gpt" else IMAGES).logits


CLASSES = {
    "gpt": "LlamaForCausalLM",
    "vit": "ViTForImageClassification",
    "distilbert": "DistilBertForSequenceClassification",
}


@pytest.mark.parametrize("name", CLASSES)
def test_from_pretrained_loads_the_merged_model(name, tmp_path):
    net, folder = exported(name, "transformers", tmp_path)
    model, said = getattr(transformers, CLASSES[name]).from_pretrained(folder, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    close(theirs(model.eval(), name), ours(net, name), 1e-5)


def test_head_becomes_two_layers_of_which_the_second_rounds_nothing():
    register_models()
    arguments, _, _ = MODELS["distilbert"]
    net = ARCHITECTURES["distilbert"].build(**arguments)
    nn.init.normal_(net.head.bias)
    model, cls = distilbert(net), torch.randn(64, 16)
    first = model.pre_classifier(cls)
    assert torch.equal(model.classifier(first.relu()), first[:, :2])  # relu(z) − relu(−z) = z
    close(first[:, :2], net.head(cls), 1e-6)


@pytest.mark.parametrize(
    "names", [["mlp"], pytest.param(["resnet", "vit", "gpt"], marks=pytest.mark.slow)], ids=", ".join
)
def test_onnxruntime_computes_the_same(names, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    inputs = {"mlp": torch.randn(3, 1, 8, 8), "resnet": torch.randn(3, 3, 8, 8), "vit": IMAGES, "gpt": TOKENS}
    for name in names:
        (tmp_path / name).mkdir()
        net, path = exported(name, "onnx", tmp_path / name)
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"input": inputs[name].numpy()})  # it was traced with 2, and 16 tokens
        with torch.no_grad():
            close(torch.from_numpy(found), net(inputs[name]), 1e-5)


@pytest.mark.parametrize("name", ["mlp", "gpt", "vit", "distilbert"])
def test_peft_loads_the_adapters_over_the_base(name, tmp_path):
    peft = pytest.importorskip("peft")
    net, folder = exported(name, "peft", tmp_path)
    if name == "mlp":
        base, x = ARCHITECTURES["mlp"].build(**MODELS["mlp"][0]).eval(), torch.randn(3, 1, 8, 8)
        base.load_state_dict(load_file(folder / "base" / "model.safetensors"))
        compute = torch.no_grad()(lambda model: model(x))
        expected = compute(net)
    else:
        base = getattr(transformers, CLASSES[name]).from_pretrained(folder / "base")
        compute, expected = lambda model: theirs(model, name), ours(net, name)
    without = compute(base)
    close(compute(peft.PeftModel.from_pretrained(base, folder).eval()), expected, 1e-5)
    assert (without - expected).abs().max() > 1e-2 * expected.abs().max()  # the base alone is another model


def test_state_dict_fits_the_plain_model(tmp_path):
    net, path = exported("resnet", "state_dict", tmp_path)
    plain, x = ARCHITECTURES["resnet"].build(**MODELS["resnet"][0]).eval(), torch.randn(3, 3, 8, 8)
    plain.load_state_dict(load_file(path))
    with torch.no_grad():
        close(plain(x), net(x), 1e-5)


@pytest.mark.parametrize(
    ("name", "target", "words"),
    [
        ("mlp", "transformers", "transformers has no class for 'mlp', only for gpt, vit, distilbert"),
        ("distilbert", "onnx", "ONNX is for mlp, resnet, vit, gpt, and this artifact is 'distilbert'"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(name, target, words, tmp_path, capsys):
    path = saved(name, tmp_path)
    assert main(["export", str(path), str(tmp_path / "out"), "--to", target]) == 1
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_option_that_no_lora_has_is_refused_by_name(tmp_path, capsys):
    path = saved("mlp", tmp_path, dora=True)
    assert main(["export", str(path), str(tmp_path / "out"), "--to", "peft"]) == 1
    assert "Layer 'body.1' has the option dora, which no LoRA has" in capsys.readouterr().err


def test_nothing_is_overwritten_and_no_folder_made(tmp_path, capsys):
    path = saved("mlp", tmp_path)
    assert main(["export", str(path), str(path), "--to", "onnx"]) == 1
    assert "exists. Name another file or folder." in capsys.readouterr().err
    assert main(["export", str(path), str(tmp_path / "nowhere" / "out"), "--to", "onnx"]) == 1
    assert f"{tmp_path / 'nowhere'} is no folder." in capsys.readouterr().err


def test_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", str(saved("mlp", tmp_path)), str(tmp_path / "out"), "--to", "onnx"]) == 1
    assert capsys.readouterr().err.endswith(
        "The package onnx is missing. Type: pip install 'lottalora[export]'\n"
    )


@pytest.mark.parametrize("command", ["verify", "export --to state_dict"])
def test_missing_package_of_a_model_is_named_and_not_the_artifacts_arguments(
    tmp_path, monkeypatch, capsys, command
):
    path = saved("gpt", tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    name, *options = command.split()
    assert main([name, str(path), *([str(tmp_path / "out"), *options] if options else [])]) == 1
    said = "error: The package transformers is missing. Type: pip install 'lottalora[suite]'\n"
    assert capsys.readouterr().err == said
