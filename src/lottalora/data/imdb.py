"""IMDB: reviews of films, praising or not, as the tokens of BERT.

Letters: N reviews, S tokens of all of them, B reviews of a batch, T tokens of its longest.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lottalora.data.batches.batch import Texts
from lottalora.data.batches.by_length import EVALUATION_BATCH
from lottalora.data.batches.by_length import Batches
from lottalora.data.batches.held_out import checked_hold_out
from lottalora.data.batches.held_out import held_out
from lottalora.data.batches.held_out import parts_of
from lottalora.data.fingerprint import fingerprint
from lottalora.data.fingerprint import with_shapes
from lottalora.data.sources.hub import read_tokenizer
from lottalora.data.sources.parsed import Arrays
from lottalora.data.sources.parsed import cache_folder
from lottalora.data.sources.parsed import read_once
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample
from lottalora.downloads import ensure

TOKENIZER = "bert-base-uncased"  # google-bert's on the hub
VOCABULARY = 30_522
PADDING, BEGIN, END = 0, 101, 102  # [PAD], [CLS] and [SEP]
LONGEST = 512  # tokens, [CLS] and [SEP] among them: the model has no more positions
REVIEWS = 25_000  # of each official part
HELD_OUT = 1_250  # reviews of each class
POOL = 50  # batches that are sorted by length together: 2 % of the tokens are padding
AT_ONCE = 1_000  # reviews that are tokenised together
VERSION = 1  # of the tokenised arrays; raised when reading changes them
log = logging.getLogger(__name__)


class IMDB:
    """50,000 reviews, half of each official part positive (class 1).

    Of the 25,000 training reviews a fixed 1,250 of each class are held out as the part by which an epoch is
    chosen and training ended early: the paper names no such part, and test reviews choose nothing here.
    22,500 are trained on, 25,000 test. Reviews become tokens once, 3 minutes on one core; these are kept.

    Source: Maas et al. 2011, https://aclanthology.org/P11-1015; the files are Hugging Face's
    stanfordnlp/imdb.

    Args:
        root: folder that holds plain_text/; the tokenizer lies in tokenizers/bert-base-uncased beside it.
            What is not there is downloaded.
        batch_size: reviews.
        max_length: tokens of a review, [CLS] and [SEP] among them; a longer one loses its end.
        hold_out: whether a tenth of the training examples is held out to choose the epoch by; if not, all are
            trained on and the last epoch counts.
        sample: 384 made sequences in place of the real data.
    """

    spec = DataSpec(
        in_shape=(LONGEST, VOCABULARY), out_dim=2, metric="accuracy", higher_is_better=True, chance=0.5
    )
    train_examples = REVIEWS - 2 * HELD_OUT

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        max_length: int = LONGEST,
        hold_out: bool = True,
        sample: bool = False,
    ) -> None:
        if type(max_length) is not int or not 3 <= max_length <= LONGEST:
            raise ValueError(
                f"data.max_length must be a whole number of tokens from 3 to {LONGEST}, got {max_length!r}."
            )
        self.root = Path(root)
        self.batch_size = batch_size
        self.max_length = max_length
        self.hold_out = checked_hold_out(hold_out)
        self.sample = checked_sample(sample)

    def read(self) -> "TextSplits":
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        if self.sample:
            train, validation, test = (made_reviews(part, self.max_length) for part in range(3))
        else:
            train, validation, test = self._official()
        train, validation = parts_of(self.hold_out, train, validation)
        return TextSplits(train=train, validation=validation, test=test, batch_size=self.batch_size)

    def _official(self) -> tuple["Reviews", "Reviews", "Reviews"]:
        train, test = (self._tokenised(name) for name in ("train", "test"))
        places = held_out(train["labels"], each=HELD_OUT)
        rest = np.arange(len(test["labels"]))
        parts = ((train, places[0]), (train, places[1]), (test, rest))
        return tuple(cut(arrays, chosen, self.max_length) for arrays, chosen in parts)

    def _tokenised(self, name: str) -> Arrays:
        """All reviews of an official part: tokens (S,) without [CLS] and [SEP], lengths and labels (N,)."""
        file = f"plain_text/{name}-00000-of-00001.parquet"
        path = ensure(
            self.root / file,
            title="IMDB",
            source=f"datasets/stanfordnlp/imdb/resolve/main/{file}",
            otherwise=(
                ", or name the folder above imdb/ with paths.data=FOLDER or LOTTALORA_DATA; "
                "data.sample=true needs no network."
            ),
        )
        folder = self.root.parent / "tokenizers" / TOKENIZER
        tokenizer = read_tokenizer(folder, repository=f"google-bert/{TOKENIZER}", vocabulary=VOCABULARY)
        source = hashlib.sha256(path.read_bytes() + tokenizer.to_str().encode()).hexdigest()
        return read_once(
            f"imdb-{name}-v{VERSION}-{source[:12]}.npz",
            [self.root, cache_folder()],
            lambda: tokenise(*read_reviews(path), tokenizer),
        )


@dataclass(frozen=True)
class Reviews:
    """One part of a split: tokens (S,) with [CLS] and [SEP] of each review; lengths and labels (N,)."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def batch(self, index: Tensor) -> tuple[Texts, Tensor]:
        """The reviews of `index`, padded to the longest of them, and their labels."""
        ends = self.lengths.cumsum(0)[index].tolist()
        lengths = self.lengths[index]
        rows = [self.tokens[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
        tokens = pad_sequence(rows, batch_first=True, padding_value=PADDING)  # (B, T)
        return Texts(tokens.long(), lengths), self.labels[index]


@dataclass(frozen=True, kw_only=True)
class TextSplits:
    """Train, validation and test part."""

    train: Reviews
    validation: Reviews | None  # None: all training reviews are trained on
    test: Reviews
    batch_size: int

    def train_batches(self, seed: int) -> Batches:
        return Batches(self.train, batch_size=self.batch_size, seed=seed, pool=POOL)

    def validation_batches(self) -> Batches | None:
        if self.validation is None:
            return None
        return Batches(self.validation, batch_size=EVALUATION_BATCH)

    def test_batches(self) -> Batches:
        return Batches(self.test, batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        """SHA-256 over shapes and values of all parts: texts, tokenizer, cut and split in one number."""
        parts = filter(None, (self.train, self.validation, self.test))
        arrays = [each for part in parts for each in (part.tokens, part.lengths, part.labels)]
        return fingerprint(with_shapes(arrays))


def read_reviews(path: Path, count: int = REVIEWS) -> tuple[list[str], np.ndarray]:
    """Texts and labels of an official part.

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    from pyarrow import parquet

    again = "Delete it and run again to download it anew."
    try:
        columns = parquet.read_table(path, columns=["text", "label"]).to_pydict()
        texts, labels = columns["text"], columns["label"]
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own are ValueErrors
        raise ValueError(
            f"{path} is damaged or no parquet file with text and label ({error}). {again}"
        ) from error
    if len(texts) != count:
        raise ValueError(f"{path} holds {len(texts):,} reviews, not {count:,}. {again}")
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{path}, row {row}: the review has no text. {again}")
        if label not in (0, 1):
            raise ValueError(
                f"{path}, row {row}: the label {label!r} is neither 0, negative, nor 1, positive. {again}"
            )
    return texts, np.array(labels)


def tokenise(texts: list[str], labels: np.ndarray, tokenizer: object) -> Arrays:
    """The first tokens of each review, as many as any max_length leaves room for."""
    log.info("making tokens of %s reviews, once", f"{len(texts):,}")
    rows = []
    for first in range(0, len(texts), AT_ONCE):
        encoded = tokenizer.encode_batch_fast(texts[first : first + AT_ONCE], add_special_tokens=False)
        rows += [np.array(each.ids[: LONGEST - 2], np.uint16) for each in encoded]
    return {
        "tokens": np.concatenate(rows),
        "lengths": np.array([len(row) for row in rows]),
        "labels": labels,
    }


def cut(arrays: Arrays, chosen: np.ndarray, max_length: int) -> Reviews:
    """The chosen reviews, each between [CLS] and [SEP] and no longer than `max_length` with both."""
    ends = np.cumsum(arrays["lengths"])
    rows = []
    for place in chosen:
        begin = ends[place] - arrays["lengths"][place]
        inner = arrays["tokens"][begin : min(ends[place], begin + max_length - 2)]
        rows.append(np.concatenate([[BEGIN], inner, [END]]).astype(np.int32))
    return Reviews(
        torch.from_numpy(np.concatenate(rows)),
        torch.tensor([len(row) for row in rows]),
        torch.from_numpy(arrays["labels"][chosen].astype(np.int64)),
    )


def made_reviews(part: int, max_length: int) -> Reviews:
    """One part of the stand-in: 256, 64 or 64 sequences, a third of whose tokens say the class.

    Negative ones come first, as in the real file.
    """
    random = np.random.RandomState(part)
    count = (256, 64, 64)[part]
    labels = np.repeat([0, 1], count // 2)
    lengths = random.randint(6, 25, count)
    of_class = np.repeat(labels, lengths)
    telling = random.rand(len(of_class)) < 1 / 3
    words = 2000 + random.randint(0, 40, len(of_class))
    tokens = np.where(telling, 3000 + 10 * of_class + words % 10, words)
    arrays = {"tokens": tokens.astype(np.uint16), "lengths": lengths, "labels": labels}
    return cut(arrays, np.arange(count), max_length)
