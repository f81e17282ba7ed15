"""CIFAR-10 and its networks: the paper's counts, images moved but not changed, files that are whole."""

import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lottalora.build import build
from lottalora.config.identity import changes
from lottalora.config.identity import digest
from lottalora.data.batches.images import Images
from lottalora.data.batches.images import ImageSplits
from lottalora.data.batches.images import crop_and_flip
from lottalora.data.cifar10 import CIFAR10
from lottalora.data.cifar10 import FILES
from lottalora.data.sources import files
from lottalora.models.resnet import Block
from lottalora.models.resnet import ResNet
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.tasks.classification import Classification
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.fit import score

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "cifar10")
PAIR = ("model=resnet", "data=cifar10")
FULL = 269_722


@pytest.fixture(scope="module")
def sample() -> ImageSplits:
    return CIFAR10(root="nowhere", batch_size=128, sample=True).read()


@pytest.fixture(scope="module")
def cifar10() -> ImageSplits:
    return CIFAR10(root=str(ROOT), batch_size=128).read()


def built(cfg):
    with torch.device("meta"):
        return build(cfg, CIFAR10.spec)


def epoch_of(splits: ImageSplits, *, seed: int, epoch: int = 0) -> torch.Tensor:
    batches = splits.train_batches(seed)
    batches.sampler.set_epoch(epoch)
    return torch.cat([x for x, _ in batches])


@pytest.mark.parametrize(
    ("rank", "trainable"), [(1, 8_376), (2, 14_707), (4, 27_369), (8, 52_693), (16, 103_341), (32, 204_637)]
)
def test_a_scaffold_trains_as_many_parameters_as_table_22_says(composed, rank, trainable):
    net, account = built(composed(*PAIR, f"rank={rank}"))
    assert account.trainable == trainable == 6_331 * rank + 2_045
    assert account.trainable == sum(p.numel() for p in net.parameters())
    assert account.full == FULL


def test_all_19_convolutions_are_adapted_and_the_head_is_kept(composed):
    net, account = built(composed(*PAIR))
    assert sum(isinstance(module, LottaLayer) for module in net.modules()) == 19
    assert [entry.name for entry in account.entries if entry.place != "adapt"] == ["head.weight"]


@pytest.mark.parametrize("size", ["plain20", "resnet20"])
def test_a_shortcut_has_no_parameters(composed, size):
    _, account = built(composed(*PAIR, "mode=baseline", f"model.size={size}"))
    assert account.trainable == FULL


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("plain20", ()),
        ("plain32", ("model.depth=32",)),
        ("resnet20", ("model.shortcut=true",)),
        ("resnet32", ("model.depth=32", "model.shortcut=true")),
    ],
)
def test_depth_and_shortcut_name_the_size(composed, size, words):
    typed, named = composed(*PAIR, *words), composed(*PAIR, f"model.size={size}")
    assert typed.model.size == named.model.size == size
    assert digest(typed) == digest(named)
    net, _ = built(typed)
    assert sum(isinstance(module, LottaLayer) for module in net.modules()) == int(size[-2:]) - 1
    assert net.blocks[0].shortcut is size.startswith("resnet")


@pytest.mark.parametrize(
    "word", ["model.depth=32", "model.shortcut=true", "adapter.dora=true", "adapter.residual=true"]
)
def test_choosing_a_network_or_an_option_of_the_table_leaves_the_recipe_the_papers(typed, word):
    assert changes(typed(*PAIR, word)) == {}


def test_the_recipe_is_the_papers_protocol(composed):
    cfg = composed(*PAIR)
    assert cfg.recipe.name == "paper"
    assert cfg.data.batch_size == 128
    assert cfg.scaffold.family == "normal"
    assert cfg.scaffold.parameters == {"std": 1.0, "fan_in": True}


@pytest.mark.parametrize(
    ("words", "epochs"),
    [(["mode=baseline"], 164), (["mode=head"], 164)]
    + [([f"rank={rank}"], 150) for rank in (1, 4, 8, 16)]
    + [([f"rank={rank}"], 164) for rank in (2, 32)]
    + [(["mode=zero", "rank=4"], 150), (["rank=8", "trainer.epochs=3"], 3)],
)
def test_epochs_are_the_papers_for_the_rank_and_the_schedule_ends_with_them(composed, words, epochs):
    cfg = composed(*PAIR, *words)
    assert cfg.trainer.epochs == cfg.schedule.T_max == epochs


def test_a_depth_that_is_not_6n_plus_2_is_refused():
    with pytest.raises(ValueError, match="must be 6n \\+ 2, such as 20 or 32, got 21"):
        ResNet((3, 32, 32), 10, depth=21, shortcut=False)


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_shortcut_adds_every_second_pixel_of_the_input(shortcut):
    block = Block(2, 4, shortcut=shortcut)
    torch.nn.init.zeros_(block.second.norm.weight)  # so that the convolutions give 0
    x = torch.rand(3, 2, 8, 8)
    expected = torch.zeros(3, 4, 4, 4)
    if shortcut:
        expected[:, :2] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), expected)


def test_an_augmented_image_is_a_window_of_itself_with_a_black_margin():
    pixels = torch.randint(1, 256, (300, 3, 6, 6), dtype=torch.uint8)
    moved = crop_and_flip(pixels, torch.Generator().manual_seed(0), margin=2)
    assert (moved.shape, moved.dtype) == (pixels.shape, torch.uint8)
    seen = set()
    for image, result in zip(F.pad(pixels, [2] * 4), moved, strict=True):
        windows = {
            (top, left, flip): window.flip(-1) if flip else window
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            for window in [image[:, top : top + 6, left : left + 6]]
        }
        (place,) = [place for place, window in windows.items() if torch.equal(window, result)]
        seen.add(place)
    assert len(seen) == 50  # every window, mirrored and not


def test_every_arm_sees_the_same_augmented_images_and_every_epoch_others(sample):
    first = epoch_of(sample, seed=42)
    torch.rand(5)
    assert torch.equal(epoch_of(sample, seed=42), first)
    assert not torch.equal(epoch_of(sample, seed=42, epoch=1), first)
    assert not torch.equal(epoch_of(sample, seed=43), first)


def test_augmentation_draws_nothing_that_the_order_draws(sample):
    sampler = sample.train_batches(42).sampler
    order, augment = (torch.randint(1000, (9,), generator=sampler.generator(p)) for p in ("", "/augment"))
    assert not torch.equal(order, augment)


def test_validation_and_test_images_are_not_augmented(sample):
    for batches, part in (
        (sample.validation_batches(), sample.validation),
        (sample.test_batches(), sample.test),
    ):
        x = torch.cat([x for x, _ in batches])
        torch.testing.assert_close(x, (part.pixels.float() - sample.mean) / sample.std)


def test_the_sample_has_the_shape_that_the_spec_promises(sample):
    assert tuple(sample.train.pixels.shape[1:]) == CIFAR10.spec.in_shape
    assert sample.train.pixels.dtype == torch.uint8
    assert set(sample.test.labels.tolist()) == set(range(10))


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_an_epoch_on_the_sample_lowers_the_loss(composed, sample, tmp_path, mode):
    torch.manual_seed(0)
    net, _ = build(composed(*PAIR, f"mode={mode}"), CIFAR10.spec)
    few = ImageSplits(
        train=few_of(sample.train, 256),
        validation=few_of(sample.validation, 50),
        test=few_of(sample.test, 50),
        mean=sample.mean,
        std=sample.std,
        batch_size=32,
    )
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    task = Classification(net, CIFAR10.spec, optimizer, partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    before = loss_on(net, few)
    plan = TrainerSettings(epochs=1, accelerator="cpu")
    training = fit(task, few, plan, seed=0, higher_is_better=True, folder=tmp_path)
    assert loss_on(net, few) < before
    assert 0 <= score(training.trainer, task, few) <= 1


def few_of(images: Images, count: int) -> Images:
    return images.take(torch.arange(count) * len(images.labels) // count)


@torch.no_grad()
def loss_on(net, splits) -> float:
    """In training mode, since the running statistics of a few steps say little."""
    net.train()
    x, label = next(iter(splits.train_batches(0)))
    return F.cross_entropy(net(x), label).item()


def test_a_missing_data_set_is_refused_with_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "fetch", unreachable)
    with pytest.raises(FileNotFoundError) as refusal:
        CIFAR10(root=str(tmp_path / "cifar10"), batch_size=128).read()
    said = str(refusal.value)
    assert f"CIFAR-10 is not at {tmp_path}/cifar10/cifar-10-batches-py (looked for data_batch_1, " in said
    assert "could not be downloaded (no route)" in said
    assert "the folder above cifar10/ with paths.data=FOLDER or LOTTALORA_DATA" in said
    assert not (tmp_path / "cifar10").exists()


def unreachable(*_):
    raise OSError("no route")


def test_a_truncated_file_is_refused_by_name_before_it_is_unpickled(tmp_path):
    folder = tmp_path / FILES.folder
    folder.mkdir()
    for name in FILES.sums:
        (folder / name).write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="data_batch_1 is damaged: its 100 bytes are not the official file"):
        CIFAR10(root=str(tmp_path), batch_size=128).read()


def test_a_download_brings_what_is_missing_and_leaves_what_is_there(monkeypatch, tmp_path):
    def fetch(loader, scratch):
        assert loader == "CIFAR10"
        for name in FILES.sums:
            path = Path(scratch, FILES.folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text("new")

    monkeypatch.setattr(files, "fetch", fetch)
    there = tmp_path / FILES.folder / "test_batch"
    there.parent.mkdir()
    there.write_text("old")
    FILES.ensure(tmp_path)
    found = {path.name: path.read_text() for path in there.parent.iterdir()}
    assert found == {name: "new" for name in FILES.sums} | {"test_batch": "old"}


def test_a_download_that_breaks_off_leaves_nothing(monkeypatch, tmp_path):
    def fetch(_, scratch):
        Path(scratch, "cifar-10-python.tar.gz").write_text("half")
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(files, "fetch", fetch)
    with pytest.raises(FileNotFoundError, match="File not found or corrupted"):
        FILES.ensure(tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_a_sample_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="data.sample must be true or false, got 'yes'"):
        CIFAR10(root="nowhere", batch_size=128, sample="yes")


@pytest.mark.data
@pytest.mark.skipif(bool(FILES.missing(ROOT)), reason=f"CIFAR-10 is not at {ROOT}")
class TestRealCIFAR10:
    def test_5_000_training_images_are_held_out_and_the_test_images_are_the_official_10_000(self, cifar10):
        parts = (cifar10.train, cifar10.validation, cifar10.test)
        assert [len(part.labels) for part in parts] == [45_000, 5_000, 10_000]
        assert cifar10.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]

    def test_training_and_validation_part_together_have_5_000_images_of_each_class(self, cifar10):
        counts = torch.bincount(torch.cat([cifar10.train.labels, cifar10.validation.labels]))
        assert counts.tolist() == [5_000] * 10

    def test_data_and_split_are_those_of_the_recorded_rows(self, cifar10):
        assert cifar10.fingerprint() == "d71c596cd3a4f923c47deb8f5b94f4061538517f9ec1757bf67db2050c75a23a"

    def test_normalised_pixels_have_mean_0_and_std_1_in_each_channel(self, cifar10):
        x = torch.cat([x for x, _ in cifar10.validation_batches()])
        torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=0.03)
        torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=0.03)
