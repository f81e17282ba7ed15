"""Reviews as tokens: parts that never move, batches that are resumed, files that are refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lottalora.data.imdb import BEGIN
from lottalora.data.imdb import END
from lottalora.data.imdb import IMDB
from lottalora.data.imdb import VOCABULARY
from lottalora.data.imdb import cut
from lottalora.data.imdb import read_reviews
from lottalora.data.imdb import tokenise
from lottalora.data.sources.hub import read_tokenizer
from lottalora.results import rows

ROOT = Path(os.environ.get("LOTTALORA_DATA", Path.home() / ".cache" / "lottalora"), "imdb")
real = [
    pytest.mark.data,
    pytest.mark.skipif(not (ROOT / "plain_text").exists(), reason=f"IMDB is not at {ROOT}"),
]


@pytest.fixture(scope="module")
def official():
    return IMDB(root=str(ROOT), batch_size=32).read()


@pytest.fixture(scope="module")
def sample():
    return IMDB(root="nowhere", batch_size=16, sample=True).read()


def tokenizer_in(folder: Path, *words: str) -> Path:
    """A tokenizer.json that knows these words alone."""
    from tokenizers import Tokenizer
    from tokenizers import models
    from tokenizers import pre_tokenizers

    entries = {word: number for number, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(entries, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def parquet_in(folder: Path, **columns: list) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), folder / "train.parquet")
    return folder / "train.parquet"


def arrays(*lengths: int) -> dict:
    """Reviews of these lengths, whose tokens are counted through."""
    return {
        "tokens": np.arange(1000, 1000 + sum(lengths), dtype=np.uint16),
        "lengths": np.array(lengths),
        "labels": np.arange(len(lengths)) % 2,
    }


def test_a_review_stands_between_its_two_marks_and_loses_its_end_if_it_is_long():
    part = cut(arrays(2, 6, 3), np.array([1, 2]), max_length=5)
    assert part.tokens.tolist() == [BEGIN, 1002, 1003, 1004, END, BEGIN, 1008, 1009, 1010, END]
    assert part.lengths.tolist() == [5, 5]
    assert part.labels.tolist() == [1, 0]


def test_a_batch_holds_the_tokens_of_its_reviews_and_padding_behind_them():
    x, label = cut(arrays(2, 1, 3), np.arange(3), max_length=9).batch(torch.tensor([2, 0]))
    assert x.tokens.tolist() == [[BEGIN, 1003, 1004, 1005, END], [BEGIN, 1000, 1001, END, 0]]
    assert x.lengths.tolist() == [5, 4]
    assert label.tolist() == [0, 0]


def test_reviews_become_the_tokens_of_the_tokenizer_without_marks(tmp_path):
    folder = tokenizer_in(tmp_path / "small", "a", "good", "film")
    tokenizer = read_tokenizer(folder, repository="google-bert/small", vocabulary=4)
    made = tokenise(["a good film", "film " * 600], np.array([1, 0]), tokenizer)
    assert made["tokens"][:3].tolist() == [1, 2, 3]
    assert made["lengths"].tolist() == [3, 510]
    assert made["tokens"].dtype == np.uint16


def test_the_stand_in_has_both_classes_in_every_part_and_no_file(sample):
    for part, count in ((sample.train, 256), (sample.validation, 64), (sample.test, 64)):
        assert len(part.labels) == count == 2 * int(part.labels.sum())
        assert int(part.tokens.max()) < VOCABULARY


def test_batches_mix_the_classes_although_negative_reviews_come_first_in_the_file(sample):
    shares = [float(label.float().mean()) for _, label in sample.train_batches(seed=1)]
    assert all(0 < share < 1 for share in shares)


def test_an_epoch_holds_every_review_once_in_an_order_of_seed_and_epoch(sample):
    one, same, other = (sample.train_batches(seed) for seed in (1, 1, 2))
    members = [[each.tolist() for each in batches.index()] for batches in (one, same, other)]
    assert sorted(sum(members[0], [])) == list(range(256))
    assert members[0] == members[1] != members[2]
    one.sampler.set_epoch(1)
    assert [each.tolist() for each in one.index()] != members[0]


def test_batches_go_on_in_the_middle_of_an_epoch(sample):
    whole, resumed = sample.train_batches(seed=1), sample.train_batches(seed=1)
    resumed.load_state_dict({"batch": 5})
    expected = [label.tolist() for _, label in whole][5:]
    assert [label.tolist() for _, label in resumed] == expected
    assert len(list(resumed)) == len(whole)


def test_another_max_length_is_another_fingerprint(sample):
    again, shorter = (
        IMDB(root="nowhere", batch_size=16, max_length=length, sample=True).read() for length in (512, 10)
    )
    assert again.fingerprint() == sample.fingerprint() != shorter.fingerprint()


@pytest.mark.parametrize("max_length", [2, 513, 0.5, True])
def test_a_max_length_that_the_model_has_no_positions_for_is_refused(max_length):
    with pytest.raises(ValueError, match="data.max_length must be a whole number of tokens from 3 to 512"):
        IMDB(root="nowhere", batch_size=16, max_length=max_length)


def test_reviews_are_read_in_the_order_of_the_file(tmp_path):
    texts, labels = read_reviews(parquet_in(tmp_path, text=["bad", "good"], label=[0, 1]), count=2)
    assert (texts, labels.tolist()) == (["bad", "good"], [0, 1])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["bad", " \n"], "label": [0, 1]}, "row 1: the review has no text"),
        ({"text": ["bad", None], "label": [0, 1]}, "row 1: the review has no text"),
        ({"text": ["bad", "good"], "label": [0, -1]}, "row 1: the label -1 is neither 0, negative, nor 1"),
        (
            {"text": ["bad", "good"], "label": [None, 1]},
            "row 0: the label None is neither 0, negative, nor 1",
        ),
        ({"text": ["bad"], "label": [0]}, "holds 1 reviews, not 2. Delete it and run again"),
        ({"review": ["bad"], "label": [0]}, "damaged or no parquet file with text and label"),
    ],
)
def test_a_file_with_something_else_in_it_is_refused(tmp_path, columns, message):
    with pytest.raises(ValueError, match=f"train.parquet.*{message}"):
        read_reviews(parquet_in(tmp_path, **columns), count=2)


def test_a_truncated_file_is_refused(tmp_path):
    path = parquet_in(tmp_path, text=["bad", "good"], label=[0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="train.parquet is damaged .* Delete it and run again"):
        read_reviews(path, count=2)


def test_a_tokenizer_with_another_vocabulary_is_refused(tmp_path):
    folder = tokenizer_in(tmp_path / "bert-base-uncased", "a", "film")
    message = "tokenizer.json has a vocabulary of 3 entries, not the 30,522 of google-bert/bert-base-uncased"
    with pytest.raises(ValueError, match=message):
        read_tokenizer(folder, repository="google-bert/bert-base-uncased", vocabulary=VOCABULARY)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match="tokenizer.json is no tokenizer .* Delete it and run again"):
        read_tokenizer(tmp_path, repository="google-bert/bert-base-uncased", vocabulary=VOCABULARY)


def test_missing_files_are_refused_in_one_line_with_where_they_are_published(command, tmp_path):
    finished = command("model=distilbert", "data=imdb", "mode=baseline", f"paths.data={tmp_path}/none")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"error: IMDB is not at {tmp_path}/none/imdb/plain_text/train-00000-of-00001.parq")
    assert "huggingface.co/datasets/stanfordnlp/imdb/resolve/main/plain_text/train-" in line
    assert "paths.data=FOLDER" in line


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_a_run_on_the_stand_in_learns(command, tmp_path, mode):
    words = ("model=distilbert", "data=imdb", "data.sample=true", f"mode={mode}", "trainer.epochs=3")
    finished = command(*words, "optimizer.lr=2e-3", "recipe_name=quick")
    assert finished.returncode == 0, finished.stderr
    (row,), problems = rows.read_all(tmp_path / "results")
    assert problems == []
    assert row["score"] > 0.7
    assert row["alpha"] == (16 if mode == "scaffold" else None)


class TestRealReviews:
    pytestmark = real

    def test_the_parts_are_balanced_and_the_official_test_part_is_whole(self, official):
        for part, count in ((official.train, 22_500), (official.validation, 2_500), (official.test, 25_000)):
            assert len(part.labels) == count == 2 * int(part.labels.sum())

    def test_little_of_an_epoch_is_padding(self, official):
        batches = official.train_batches(seed=42)
        longest = [int(official.train.lengths[index].max()) * len(index) for index in batches.index()]
        assert sum(longest) < 1.03 * int(official.train.lengths.sum())

    def test_data_and_split_are_those_of_the_recorded_rows(self, official):
        assert official.fingerprint() == "f86c5cf0c86408b92d651608f0988e108dfa7c7e4defad01187f5f89ce0382f3"
