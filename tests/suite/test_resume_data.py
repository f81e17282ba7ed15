"""Every data set can be resumed within an epoch: the batches that remain are the same, to the bit."""

import importlib
import pkgutil
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

import lottalora.data
from lottalora.data.batches.order import Batches

MADE = {  # data set → the config of a stand-in with a few batches
    "arxiv": ("model=gcn", "data.sample=true"),
    "cifar10": ("model=resnet", "data.sample=true", "data.batch_size=300"),
    "digits": ("model=mlp", "data.batch_size=300"),
    "flowers102": ("model=vit_random", "data.sample=true", "data.image_size=16", "data.batch_size=100"),
    "halfcheetah": ("model=decision_transformer", "data.sample=true", "data.batch_size=70"),
    "imdb": ("model=distilbert", "data.sample=true", "data.batch_size=50"),
    "lorenz": ("model=mlp", "data.batch_size=900"),
    "mnist": ("model=mlp", "data.sample=true", "data.batch_size=300"),
    "molhiv": ("model=gin", "data.sample=true", "data.batch_size=70"),
    "physionet2012": ("model=cfc", "data.sample=true", "data.batch_size=40"),
    "text": ("model=gpt", "data.sample=true", "data.name=made", "data.tokens=2049", "data.batch_size=3"),
    "wikitext103": ("model=gpt", "data.sample=true", "data.tokens=2049", "data.batch_size=3"),
    "wikitext2": ("model=gpt", "data.sample=true", "data.tokens=2049", "data.batch_size=3"),
}
SEED, EPOCH = 5, 1
CONF = Path(lottalora.__file__).parent / "conf"


@pytest.fixture
def splits(composed):
    return lambda data: instantiate(composed(f"data={data}", *MADE[data]).data).read()


def begin(splits, epoch=EPOCH):
    """The training batches, as a process finds them that has just started; nothing else draws as before."""
    torch.seed()
    batches = splits.train_batches(SEED)
    batches.sampler.set_epoch(epoch)
    return batches


def bits(batch):
    """Kind, shape and bytes of every tensor of a batch."""
    if isinstance(batch, torch.Tensor):
        return batch.dtype, tuple(batch.shape), batch.contiguous().numpy().tobytes()
    return [bits(part) for part in batch]


def test_every_data_set_is_tried():
    known = MADE.keys() | {"gated_mnist"}  # its batches are those of MNIST
    assert {path.stem for path in (CONF / "data").glob("*.yaml")} == known


@pytest.mark.parametrize("data", MADE)
def test_after_a_resume_the_batches_that_remain_are_those_of_an_epoch_without_one(data, splits):
    read = splits(data)
    whole = [bits(batch) for batch in begin(read)]
    assert len(whole) == len(begin(read))
    assert len(whole) >= 3 or data == "arxiv"  # one batch is the whole graph
    for served in sorted({0, 1, len(whole) // 2, len(whole) - 1} & set(range(len(whole)))):
        stopped = begin(read)
        each = iter(stopped)
        for _ in range(served):
            next(each)
        resumed = begin(read)
        resumed.load_state_dict(stopped.state_dict())
        assert [bits(batch) for batch in resumed] == whole[served:]
        assert resumed.state_dict() == {"batch": 0}
        resumed.sampler.set_epoch(EPOCH + 1)
        assert bits(next(iter(resumed))) == bits(next(iter(begin(read, EPOCH + 1))))


def test_every_class_of_batches_is_among_them(splits):
    for module in pkgutil.walk_packages(lottalora.data.__path__, "lottalora.data."):
        importlib.import_module(module.name)
    ours = {each for each in Batches.__subclasses__() if each.__module__.startswith("lottalora.data.")}
    tried = {type(splits(data).train_batches(SEED)) for data in MADE}
    assert len(ours) == 8
    assert tried == ours
