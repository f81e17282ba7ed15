"""Splits that never move, batches that every arm shares, and files that are what they should be."""

import os
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from lottalora.data.batches.images import Batches
from lottalora.data.batches.images import Images
from lottalora.data.digits import Digits
from lottalora.data.digits import read_digits
from lottalora.data.mnist import FILES
from lottalora.data.mnist import MNIST

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "mnist")
real = [
    pytest.mark.data,
    pytest.mark.skipif(bool(FILES.missing(ROOT)), reason=f"MNIST is not at {ROOT}"),
]
SETS = {
    "digits": Digits(batch_size=32),
    "sample": MNIST(root="nowhere", batch_size=128, sample=True),
}


@pytest.fixture(scope="module")
def mnist():
    return MNIST(root=str(ROOT), batch_size=128).read()


def numbered(count: int) -> Images:
    """Images whose label is their place."""
    return Images(torch.zeros(count, 1, 2, 2, dtype=torch.uint8), torch.arange(count))


def labels_of(batches: Batches) -> list[int]:
    return torch.cat([label for _, label in batches]).tolist()


def batches_of(seed: int, epoch: int) -> Batches:
    batches = Batches(numbered(10), mean=0, std=1, batch_size=4, seed=seed)
    batches.sampler.set_epoch(epoch)
    return batches


def test_the_same_seed_and_epoch_give_the_same_batches_whatever_else_was_drawn():
    torch.manual_seed(1)
    first = labels_of(batches_of(42, 3))
    torch.rand(5)
    assert labels_of(batches_of(42, 3)) == first


def test_another_seed_or_epoch_gives_another_order():
    first = labels_of(batches_of(42, 0))
    assert labels_of(batches_of(42, 1)) != first
    assert labels_of(batches_of(43, 0)) != first


def test_every_example_is_seen_once_an_epoch_and_the_smaller_last_batch_is_kept():
    batches = batches_of(42, 0)
    assert [len(label) for _, label in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(labels_of(batches)) == list(range(10))


def test_without_a_seed_the_order_is_the_stored_one():
    assert labels_of(Batches(numbered(10), mean=0, std=1, batch_size=4)) == list(range(10))


def test_a_batch_is_normalised_with_mean_and_std():
    images = Images(torch.full((1, 1, 2, 2), 7, dtype=torch.uint8), torch.tensor([0]))
    ((x, _),) = Batches(images, mean=3.0, std=2.0, batch_size=1)
    assert x.dtype == torch.float32
    assert torch.equal(x, torch.full((1, 1, 2, 2), 2.0))


@pytest.mark.parametrize("name", SETS)
def test_a_split_is_the_same_at_every_reading(name):
    assert SETS[name].read().fingerprint() == SETS[name].read().fingerprint()


@pytest.mark.parametrize("name", SETS)
def test_the_three_parts_hold_every_digit_once_and_every_class(name):
    splits = SETS[name].read()
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part.labels) for part in parts] == [1258, 180, 359]
    assert all(set(part.labels.tolist()) == set(range(10)) for part in parts)


@pytest.mark.parametrize("name", SETS)
def test_the_images_have_the_shape_that_the_spec_promises(name):
    images = SETS[name].read().train
    assert images.pixels.dtype == torch.uint8
    assert tuple(images.pixels.shape[1:]) == SETS[name].spec.in_shape
    assert int(images.labels.max()) == SETS[name].spec.out_dim - 1


def test_the_stand_in_uses_the_range_of_a_byte():
    pixels = SETS["sample"].read().train.pixels
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)


def test_digits_are_those_of_scikit_learn():
    bunch, images = load_digits(), read_digits()
    assert torch.equal(images.pixels.squeeze(1), torch.from_numpy(bunch.images).to(torch.uint8))
    assert torch.equal(images.labels, torch.from_numpy(bunch.target))


def test_normalised_digits_have_mean_0_and_std_1():
    x = torch.cat([x for x, _ in SETS["digits"].read().train_batches(seed=0)])
    assert abs(float(x.mean())) < 0.02
    assert abs(float(x.std()) - 1) < 0.02


def test_the_fingerprint_changes_when_one_label_does():
    splits = SETS["digits"].read()
    before = splits.fingerprint()
    splits.test.labels[0] += 1
    assert splits.fingerprint() != before


def test_the_spec_is_known_without_reading_anything(tmp_path):
    data = MNIST(root=str(tmp_path / "nowhere"), batch_size=128)
    assert data.spec.in_shape == (1, 28, 28)
    assert not (tmp_path / "nowhere").exists()


def test_a_sample_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="data.sample must be true or false, got 3"):
        MNIST(root="nowhere", batch_size=128, sample=3)


def test_images_and_labels_of_different_number_are_refused():
    with pytest.raises(ValueError, match="2 images but 3 labels"):
        Images(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3))


class TestRealMNIST:
    pytestmark = real

    def test_the_training_images_are_split_90_to_10_and_the_test_images_are_the_official_10_000(self, mnist):
        assert [len(part.labels) for part in (mnist.train, mnist.validation, mnist.test)] == [
            54_000,
            6_000,
            10_000,
        ]
        assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]

    def test_training_and_validation_part_together_have_the_class_counts_of_the_60_000(self, mnist):
        counts = torch.bincount(torch.cat([mnist.train.labels, mnist.validation.labels]))
        assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]

    def test_data_and_split_are_those_of_the_recorded_rows(self, mnist):
        assert mnist.fingerprint() == "4e6e0b419aea3f9d5214c79da64a9d298a9aee6218f543fc1237a0b7b251d931"

    def test_normalised_pixels_have_mean_0_and_std_1(self, mnist):
        x = next(iter(mnist.validation_batches()))[0]
        assert abs(float(x.mean())) < 0.02
        assert abs(float(x.std()) - 1) < 0.02
