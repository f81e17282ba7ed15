"""Flowers-102: parts that never move, changes that every arm shares, files that are what they should be."""

import json
import os
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback

from lottalora.data.batches.augmentation import Augmentation
from lottalora.data.batches.augmentation import drawn_from
from lottalora.data.batches.held_out import held_out
from lottalora.data.flowers102 import CLASSES
from lottalora.data.flowers102 import FILES
from lottalora.data.flowers102 import Flowers102
from lottalora.data.flowers102 import FlowerSplits
from lottalora.data.flowers102 import read_image
from lottalora.data.flowers102 import read_lists
from lottalora.models.vit import ViT
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.mixed_classification import MixedClassification
from lottalora.tasks.schedules import PerStep
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from tests import commands
from tests.suite.conftest import ROOT

DATA = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "flowers102")
real = [
    pytest.mark.data,
    pytest.mark.skipif(bool(FILES.missing(DATA)), reason=f"Flowers102 is not at {DATA}"),
]
PROTOCOL = {
    "flip": 0.5, "operations": 2, "magnitude": 9, "erasing": 0.25,
    "mix": 0.8, "cutmix_share": 0.5, "mixup": 0.2, "cutmix": 1.0,
}  # fmt: skip
NOTHING = PROTOCOL | {"flip": 0.0, "operations": 0, "erasing": 0.0, "mix": 0.0}


def flowers(root: object = "nowhere", side: int = 32, **changed) -> Flowers102:
    augmentation = Augmentation(**PROTOCOL | changed)
    return Flowers102(root=str(root), image_size=side, batch_size=64, augmentation=augmentation, sample=True)


@pytest.fixture(scope="module")
def splits() -> FlowerSplits:
    return flowers().read()


def batches(splits: FlowerSplits, seed: int, epoch: int) -> list:
    given = splits.train_batches(seed)
    given.sampler.set_epoch(epoch)
    return list(given)


def test_the_stand_in_holds_every_class_in_every_part(splits):
    for part, count in ((splits.train, 4), (splits.validation, 1), (splits.test, 2)):
        assert Counter(part.labels.tolist()) == dict.fromkeys(range(CLASSES), count)
        assert part.pixels.shape[1:] == flowers().spec.in_shape == (3, 32, 32)
    assert splits.fingerprint() == flowers().read().fingerprint()


def test_changed_images_are_a_function_of_seed_and_epoch_alone(splits):
    first = batches(splits, 42, 3)
    torch.rand(5)
    for (x, shares), (same_x, same_shares) in zip(first, batches(splits, 42, 3), strict=True):
        assert torch.equal(x, same_x)
        assert torch.equal(shares, same_shares)
    assert not torch.equal(first[0][0], batches(splits, 42, 4)[0][0])
    assert not torch.equal(first[0][0], batches(splits, 43, 3)[0][0])


def test_changing_images_draws_nothing_from_the_stream_of_the_training(splits):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    batches(splits, 42, 0)
    assert torch.equal(torch.rand(3), expected)
    with drawn_from("a", 1):
        inside = torch.rand(3)
    with drawn_from("a", 1):
        assert torch.equal(torch.rand(3), inside)


def test_every_image_is_seen_once_an_epoch_with_shares_that_make_a_whole(splits):
    given = batches(splits, 42, 0)
    assert [len(x) for x, _ in given] == [64] * 6 + [24]
    assert len(given) == len(splits.train_batches(42))
    for _, shares in given:
        assert shares.shape[1] == CLASSES
        torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))


def test_without_changes_a_batch_is_the_normalised_images_and_their_classes():
    splits = flowers(**NOTHING).read()
    given = batches(splits, 42, 0)
    order = splits.train_batches(42).sampler.index()[:64]
    x, shares = given[0]
    assert torch.equal(shares.argmax(1), splits.train.labels[order])
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    expected = (splits.train.pixels[order] / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / (
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    )
    torch.testing.assert_close(x, expected)


def test_a_horizontal_flip_mirrors_the_image():
    plain = batches(flowers(**NOTHING).read(), 42, 0)[0][0]
    flipped = batches(flowers(**NOTHING | {"flip": 1.0}).read(), 42, 0)[0][0]
    assert torch.equal(flipped, plain.flip(-1))


def test_erasing_sets_a_rectangle_to_the_mean():
    x = batches(flowers(**NOTHING | {"erasing": 1.0}).read(), 42, 0)[0][0]
    erased = (x == 0).all(1).float().mean((1, 2))
    assert (erased > 0.01).float().mean() > 0.9


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_mixed_batch_has_two_classes_in_each_image(share):
    splits = flowers(**NOTHING | {"mix": 1.0, "cutmix_share": share, "mixup": 1.0}).read()
    classes = (batches(splits, 42, 0)[0][1] > 0).sum(1)
    assert set(classes.tolist()) <= {1, 2}  # two neighbours may be of one class
    assert (classes == 2).float().mean() > 0.9


def test_randaugment_changes_images_by_its_operations():
    plain = batches(flowers(**NOTHING).read(), 42, 0)[0][0]
    changed = batches(flowers(**NOTHING | {"operations": 2}).read(), 42, 0)[0][0]
    assert (plain != changed).flatten(1).any(1).float().mean() > 0.8


def test_validation_and_test_images_are_not_changed(splits):
    (x, label), *_ = splits.test_batches()
    again, _ = next(iter(splits.test_batches()))
    assert torch.equal(x, again)
    assert torch.equal(label, splits.test.labels[:128])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mix": 1.5}, "data.augmentation.mix is a probability, from 0 to 1, got 1.5"),
        ({"magnitude": 31}, "data.augmentation.magnitude goes from 0 to 30, got 31"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        flowers(**change)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="data.image_size must be a whole number of pixels, got 0"):
        flowers(side=0)
    with pytest.raises(ValueError, match="data.sample must be true or false, got 3"):
        Flowers102(root="", image_size=8, batch_size=1, augmentation=Augmentation(**PROTOCOL), sample=3)


def test_two_of_each_class_are_held_out_and_always_the_same():
    labels = np.random.RandomState(1).permutation(np.repeat(np.arange(CLASSES), 20))
    train, validation = held_out(labels, each=2)
    assert Counter(labels[validation].tolist()) == dict.fromkeys(range(CLASSES), 2)
    assert sorted([*train, *validation]) == list(range(2040))
    assert np.array_equal(validation, held_out(labels, each=2)[1])


def test_an_image_is_cut_to_the_square_in_its_middle(tmp_path):
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 4:12] = 255
    Image.fromarray(pixels).save(tmp_path / "image.png")
    square = read_image(tmp_path / "image.png", 8)
    assert square.shape == (3, 8, 8)
    assert square.float().mean() > 250


def test_a_truncated_image_is_refused_by_name(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "image_00001.jpg")
    content = (tmp_path / "image_00001.jpg").read_bytes()
    (tmp_path / "image_00001.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"image_00001\.jpg is missing or damaged \(.*truncated.*run again"):
        read_image(tmp_path / "image_00001.jpg", 32)


def test_a_missing_image_and_one_that_is_none_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"image_00001\.jpg is missing or damaged"):
        read_image(tmp_path / "image_00001.jpg", 32)
    (tmp_path / "image_00002.jpg").write_text("<html>")
    with pytest.raises(ValueError, match=r"image_00002\.jpg is missing or damaged"):
        read_image(tmp_path / "image_00002.jpg", 32)


def test_a_damaged_list_is_refused_by_name(tmp_path):
    (tmp_path / "flowers-102").mkdir()
    (tmp_path / "flowers-102" / "imagelabels.mat").write_bytes(b"0")
    with pytest.raises(ValueError, match=r"imagelabels\.mat is damaged: its 1 bytes are not the official"):
        read_lists(tmp_path)


def test_missing_data_without_a_network_are_refused_with_what_to_type(tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    data = flowers(tmp_path / "flowers102")
    data.sample = False
    with pytest.raises(FileNotFoundError, match="looked for imagelabels.mat, setid.mat, jpg") as refused:
        data.read()
    assert f"Flowers102 is not at {tmp_path}/flowers102/flowers-102" in str(refused.value)
    assert "data.sample=true needs no network" in str(refused.value)
    assert not (tmp_path / "flowers102").exists()


def test_baseline_and_scaffold_train_an_epoch_from_one_command(tmp_path):
    words = (
        "model=vit_random",
        "model.size=tiny",
        "data=flowers102",
        "data.sample=true",
        "data.image_size=16",
    )
    command = [
        ROOT / "run.py",
        "-m",
        *words,
        "mode=baseline,scaffold",
        "trainer.epochs=1",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = commands.run(*command, cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("results/rows/*/*/*.json"))]
    assert [row["mode"] for row in rows] == ["baseline", "scaffold"]
    assert len({row["data_fingerprint"] for row in rows}) == 1
    assert all(0 <= row["score"] <= 1 and row["sample"] for row in rows)
    assert rows[1]["arms"].keys() == {"scaffold_removed", "scaffold_swapped"}
    assert len(rows[1]["beta"]) == 36


class Stop(Callback):
    """An end in the middle of the third epoch, between two batches of one step."""

    def on_train_batch_end(self, trainer, task, outputs, batch, number):
        if (trainer.current_epoch, number) == (2, 2):
            raise RuntimeError("stopped")


def trained(splits: FlowerSplits, folder: Path, *callbacks: Callback) -> dict:
    """Weights of a ViT on a scaffold: images changed, weights averaged, two batches a step, four epochs."""
    torch.manual_seed(0)
    net = ViT(flowers(side=16).spec.in_shape, CLASSES, width=24, layers=1, heads=2, mlp=48, patch=8)
    wrap(net, Scaffold(rank=2, bias="frozen"), keep=["body.embeddings", "head"])
    task = MixedClassification(
        net, flowers(side=16).spec, partial(torch.optim.AdamW, lr=0.01), PerStep(0.1, "cosine"),
        label_smoothing=0.1, average=0.9997, flip=True,
    )  # fmt: skip
    plan = TrainerSettings(epochs=4, accumulate=2, accelerator="cpu", checkpoint_every=0)
    fit(task, splits, plan, seed=1, higher_is_better=True, folder=folder, callbacks=callbacks)
    return task.state_dict()


def test_a_stopped_run_ends_with_the_same_bits_as_an_uninterrupted_one(tmp_path):
    splits = flowers(side=16).read()
    with pytest.raises(RuntimeError, match="stopped"):
        trained(splits, tmp_path / "stopped", Stop())
    assert (tmp_path / "stopped" / "resume.ckpt").exists()
    again, whole = trained(splits, tmp_path / "stopped"), trained(splits, tmp_path / "whole")
    assert again.keys() == whole.keys()
    for name in whole:
        assert torch.equal(again[name], whole[name]), name


@pytest.fixture(scope="module")
def official() -> FlowerSplits:
    data = flowers(DATA)
    data.sample = False
    return data.read()


class TestRealFlowers:
    pytestmark = real

    def test_the_parts_are_the_official_ones_with_two_of_each_class_held_out(self, official):
        lengths = [len(part.labels) for part in (official.train, official.validation, official.test)]
        assert lengths == [Flowers102.train_examples, 204, 6149]
        assert Counter(official.train.labels.tolist()) == dict.fromkeys(range(CLASSES), 18)
        assert Counter(official.validation.labels.tolist()) == dict.fromkeys(range(CLASSES), 2)
        assert set(official.test.labels.tolist()) == set(range(CLASSES))

    def test_no_image_is_in_two_parts(self):
        _, parts = read_lists(DATA)
        numbers = np.concatenate(list(parts.values()))
        assert sorted(numbers) == list(range(1, 8190))

    def test_a_truncated_image_among_them_is_refused_by_name(self, tmp_path):
        folder = tmp_path / "flowers-102"
        shutil.copytree(DATA / "flowers-102", folder, copy_function=os.symlink)
        _, parts = read_lists(tmp_path)
        damaged = folder / "jpg" / f"image_{parts['trnid'][0]:05d}.jpg"
        content = damaged.read_bytes()
        damaged.unlink()
        damaged.write_bytes(content[:500])
        data = flowers(tmp_path)
        data.sample = False
        with pytest.raises(ValueError, match=f"{damaged.name} is missing or damaged"):
            data.read()
