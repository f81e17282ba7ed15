"""Twelve architectures of other libraries, on the meta device; scripts/zoo.py goes over all of them."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "zoo.py"
TIMM = [
    "beit_base_patch16_224",
    "convnext_atto",
    "nfnet_f0",
    "tf_efficientnet_b0",
    "swin_tiny_patch4_window7_224",
]
TRANSFORMERS = ["gpt2", "t5", "mixtral", "wav2vec2", "mamba", "roformer", "clip"]


@pytest.fixture(scope="module")
def zoo():
    spec = importlib.util.spec_from_file_location("zoo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TIMM)
def test_timm_model_is_wrapped_with_every_matrix_in_the_account(zoo, name):
    timm = pytest.importorskip("timm")
    check(zoo.visit(lambda: timm.create_model(name)))


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_model_is_wrapped_with_every_matrix_in_the_account(zoo, name):
    transformers = pytest.importorskip("transformers")
    check(zoo.visit(lambda: transformers.AutoModel.from_config(transformers.AutoConfig.for_model(name))))


def check(row):
    assert (row["error"], row["wrapped"], row["left"]) == ("", "yes", 0)
    assert row["matrices"] > row["kept"]
