"""Each benchmark trains on a GPU, and its row says so; what it leaves is read on a CPU."""

import json
from pathlib import Path

import pytest
import torch

from lottalora.experiment import run
from lottalora.scaffold import deviation
from lottalora.scaffold import load
from lottalora.scaffold import read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PAIRS = (
    "model=mlp data=mnist model.size=tiny",
    "model=mlp data=gated_mnist model.size=tiny mode=gated",
    "model=cfc data=physionet2012 model.size=0.25x",
    "model=resnet data=cifar10",
    "model=gin data=molhiv",
    "model=gcn data=arxiv",
    "model=vit_random data=flowers102 model.size=tiny",
    "model=distilbert data=imdb data.max_length=32",
    "model=decision_transformer data=halfcheetah",
    "model=gpt data=wikitext2",
)
MODES = ("baseline", "scaffold", "resample_epoch", "resample_batch")


def trained(typed, folder, *words):
    """The row of a run of one epoch on made data."""
    shortened = ("data.sample=true", "trainer.epochs=1", "rank=2", "trainer.accelerator=gpu")
    run(typed(*shortened, *words, f"paths.results={folder}"))
    (path,) = Path(folder).glob("rows/**/*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("mode", MODES)
def test_a_pair_trains_and_its_row_names_the_gpu(pair, mode, typed, tmp_path):
    if "mode=" in pair and mode != "scaffold":
        pytest.skip("one mode of its own")
    words = pair.split() if "mode=" in pair else [*pair.split(), f"mode={mode}"]
    row = trained(typed, tmp_path, *words)
    assert row["device"].startswith(torch.cuda.get_device_name())
    assert row["score"] == row["score"]


@pytest.mark.parametrize("precision", ["auto", "bf16-mixed", "16-mixed"])
def test_a_precision_is_that_of_the_row(precision, typed, tmp_path):
    row = trained(typed, tmp_path, "model=gpt", "data=wikitext2", f"trainer.precision={precision}")
    assert row["config"]["trainer"]["precision"] == precision
    assert row["score"] == row["score"]


def test_an_artifact_is_read_on_the_cpu(typed, tmp_path):
    trained(typed, tmp_path, "model=mlp", "data=mnist", "model.size=tiny", "mode=scaffold", "artifact=true")
    (path,) = tmp_path.glob("**/*.safetensors")
    assert deviation(load(path), read(path)) < 1e-3
