"""Text for language models: WikiText, or a text of the user's."""

from __future__ import annotations

import math
import re
from abc import ABC
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lottalora.data.batches.packed import Packed
from lottalora.data.batches.packed import packed_once
from lottalora.data.batches.tokens import BLOCK
from lottalora.data.batches.tokens import TokenSplits
from lottalora.data.sources.byte_pairs import checked_vocabulary
from lottalora.data.sources.byte_pairs import trained_once
from lottalora.data.sources.documents import Source
from lottalora.data.sources.documents import find_source
from lottalora.data.sources.hub import read_tokenizer
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample
from lottalora.downloads import ensure

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "llama2-32000"
PUBLISHED = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"  # on the hub, with the same tokenizer
VOCABULARY = 32_000
BEGIN = 1  # <s>, before each document
BYTE = 3  # the entry of byte 0; 255 others follow
REPOSITORY = "datasets/Salesforce/wikitext/resolve/main"


class Text(ABC):
    """A text as one stream of tokens for each part: every document behind a <s>, cut into blocks of 128.

    Within a block a token is predicted from those before it. Every token but the first of a part is predicted
    once per epoch; a block's first token from the previous block's last. Text becomes tokens once, and these
    are kept beside it; later they are read where they lie, and take no memory.

    Args:
        root: where the text lies.
        tokenizers: folder that holds llama2-32000/; what is not there is downloaded.
        batch_size: blocks.
        tokens: how many of the training part are used, the first ones; None for all.
        sample: a small made text in place of the real one, each byte a token.
    """

    spec = DataSpec(
        in_shape=(BLOCK,),
        out_dim=VOCABULARY,
        metric="loss",
        higher_is_better=False,
        chance=math.log(VOCABULARY),
    )

    def __init__(
        self, *, root: str | None, tokenizers: str, batch_size: int, tokens: int | None, sample: bool
    ) -> None:
        if tokens is not None and (type(tokens) is not int or tokens <= BLOCK):
            raise ValueError(
                f"data.tokens must be null or a whole number above {BLOCK}, one block, got {tokens!r}."
            )
        self.root = root
        self.tokenizers = Path(tokenizers)
        self.batch_size = batch_size
        self.tokens = tokens
        self.sample = checked_sample(sample)

    def read(self) -> TokenSplits:
        """The three parts. Nothing is read, looked for or downloaded before this call."""
        parts = made_parts() if self.sample else self._real()
        return TokenSplits(**parts, batch_size=self.batch_size, first=self.tokens)

    def _real(self) -> dict[str, Packed]:
        source = self.source()
        return packed_once(source, self.tokenizer_of(source))

    def tokenizer_of(self, _: Source) -> Tokenizer:
        """Llama's, unless a subclass takes one that is made from the text."""
        return read_tokenizer(self.tokenizers / TOKENIZER, repository=PUBLISHED, vocabulary=VOCABULARY)

    @abstractmethod
    def source(self) -> Source:
        """The files of each part, downloaded where that is the way to them."""


class WikiText103(Text):
    """Wikipedia's good and featured articles, 539 MB: 141 million tokens.

    A document is a row that is not empty: a heading or a paragraph.

    Source: Merity et al. 2016, https://arxiv.org/abs/1609.07843; the files are Hugging Face's
    Salesforce/wikitext.

    Args:
        root: folder that holds the folder `variant`.
        variant: wikitext-103-raw-v1, or wikitext-103-v1 with rare words as <unk>.
        tokenizers, batch_size, tokens, sample: as of `Text`.
    """

    train_examples = 34_429 * 32  # blocks: the paper's steps
    variants = ("wikitext-103-raw-v1", "wikitext-103-v1")
    shards = {"train": 2, "validation": 1, "test": 1}

    def __init__(
        self,
        *,
        root: str,
        tokenizers: str,
        batch_size: int,
        variant: str,
        tokens: int | None = None,
        sample: bool = False,
    ) -> None:
        super().__init__(
            root=root, tokenizers=tokenizers, batch_size=batch_size, tokens=tokens, sample=sample
        )
        if variant not in self.variants:
            raise ValueError(f"Unknown data.variant {variant!r}. Known: {', '.join(self.variants)}.")
        self.variant = variant

    @classmethod
    def files(cls, variant: str) -> dict[str, str]:
        """The files of a variant, below the root, and the part that each belongs to."""
        return {
            f"{variant}/{part}-{number:05}-of-{count:05}.parquet": part
            for part, count in cls.shards.items()
            for number in range(count)
        }

    def source(self) -> Source:
        folder, files = Path(self.root), self.files(self.variant)
        parts = {
            part: tuple(self.ensured(folder, file) for file in files if files[file] == part)
            for part in self.shards
        }
        return Source(folder, parts)

    def ensured(self, folder: Path, file: str) -> Path:
        return ensure(
            folder / file,
            title="WikiText",
            source=f"{REPOSITORY}/{file}",
            otherwise=(
                f", or name the folder above {folder.name}/ with paths.data=FOLDER or LOTTALORA_DATA; "
                "data=text takes any text, and data.sample=true needs no network."
            ),
        )


class WikiText2(WikiText103):
    """The same with fewer training articles, 11 MB; validation and test part are those of WikiText-103.

    Args:
        variant: wikitext-2-raw-v1, or wikitext-2-v1 with rare words as <unk>.
        root, tokenizers, batch_size, tokens, sample: as of `WikiText103`.
    """

    train_examples = 22_400  # blocks, about
    variants = ("wikitext-2-raw-v1", "wikitext-2-v1")
    shards = {"train": 1, "validation": 1, "test": 1}


class LocalText(Text):
    """A text of one's own: a file or a folder of .txt and .parquet files, in UTF-8.

    A document is a row of the column "text" of a parquet file, or what stands between empty lines of a .txt.
    Files whose name says validation (valid, val, dev) or test are those parts; where there are none, every
    20th document of the others is held out for each.

    Args:
        root: the file or folder.
        name: what rows call this text.
        vocabulary: how many entries the tokenizer has that is trained on the training part; None: Llama's.
        tokenizers, batch_size, tokens, sample: as of `Text`.
    """

    train_examples = None  # not known before it is read

    def __init__(
        self,
        *,
        root: str | None,
        name: str | None,
        tokenizers: str,
        batch_size: int,
        tokens: int | None = None,
        sample: bool = False,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__(
            root=root, tokenizers=tokenizers, batch_size=batch_size, tokens=tokens, sample=sample
        )
        self.vocabulary = checked_vocabulary(vocabulary)
        if vocabulary is not None:
            self.spec = replace(Text.spec, out_dim=vocabulary, chance=math.log(vocabulary))
        if name is not None and not re.fullmatch(r"[\w-]+", str(name), re.ASCII):
            raise ValueError(
                f"data.name must be a word of letters, digits, _ and -, got {name!r}: rows and their folder "
                "bear it."
            )
        self.name = name

    def source(self) -> Source:
        if self.root is None or self.name is None:
            raise ValueError(
                "data=text needs a text and a name for it, by which its rows are told from those of other "
                "texts. Type data.root=PATH data.name=WORD."
            )
        return find_source(Path(self.root))

    def tokenizer_of(self, source: Source) -> Tokenizer:
        if self.vocabulary is None:
            return super().tokenizer_of(source)
        return trained_once(source, self.vocabulary)


def made_parts() -> dict[str, Packed]:
    """The stand-in: sentences of a small grammar, every byte a token of the real vocabulary."""
    random = np.random.RandomState(0)
    return {
        part: made_part(random, sentences)
        for part, sentences in (("train", 1500), ("validation", 60), ("test", 60))
    }


def made_part(random: np.random.RandomState, sentences: int) -> Packed:
    """Return the built-in stand-in's part: made sentences, one token per byte."""
    words = (
        "the a one",
        "cat dog bird fish",
        "sees hears likes",
        "the a one",
        "tree house river",
        "here now",
    )
    text = "\n".join(" ".join(random.choice(each.split()) for each in words) for _ in range(sentences))
    documents = [text[first : first + 2000].encode() for first in range(0, len(text), 2000)]
    tokens = [np.r_[BEGIN, BYTE + np.frombuffer(each, np.uint8).astype(np.uint16)] for each in documents]
    return Packed(np.concatenate(tokens).astype(np.uint16), text_bytes=len(text))
