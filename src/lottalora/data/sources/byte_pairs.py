"""A tokenizer of a text's own: byte-level BPE, trained on the text's training part once."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from lottalora.data.sources.documents import Source
from lottalora.data.sources.parsed import cache_folder
from lottalora.data.sources.parsed import keep

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BEGIN = "<s>"  # entry 0, before each document
SMALLEST, LARGEST = 257, 2**16  # entries: <s> and the 256 bytes, and what two bytes can name
VERSION = 1  # of the tokenizer; raised when its making changes
log = logging.getLogger(__name__)


def checked_vocabulary(vocabulary: object) -> int | None:
    """Return data.vocabulary; raise ValueError for a number of entries that no tokenizer has."""
    if vocabulary is None or (type(vocabulary) is int and SMALLEST <= vocabulary <= LARGEST):
        return vocabulary
    raise ValueError(
        f"data.vocabulary must be null, for Llama's 32,000 entries, or a whole number from {SMALLEST} to "
        f"{LARGEST:,}, got {vocabulary!r}."
    )


def trained_once(source: Source, vocabulary: int) -> Tokenizer:
    """The tokenizer of a text: kept beside it or in the user's cache, or trained now and kept there.

    Its entries are <s>, the 256 bytes, and the pairs of entries that the training part has most often. Any
    text becomes tokens, and the tokens are its bytes: nothing is normalised, and a <s> in it is text.

    Args:
        source: the text. Validation and test part are not read.
        vocabulary: the number of entries.

    Raises:
        ValueError: the training part has too few pairs for so many entries.
    """
    from tokenizers import Tokenizer

    made_from = hashlib.sha256(f"{VERSION} {source.digest()} {vocabulary}".encode()).hexdigest()
    name, folders = f"tokenizer-v{VERSION}-{made_from[:12]}.json", [source.folder, cache_folder()]
    kept = next((folder / name for folder in folders if (folder / name).exists()), None)
    tokenizer = Tokenizer.from_str(kept.read_text("utf-8")) if kept else train(source, vocabulary)
    if kept is None:
        keep(name, folders, tokenizer.to_str().encode())
    tokenizer.encode_special_tokens = True  # no part of the file
    return tokenizer


def train(source: Source, vocabulary: int) -> Tokenizer:
    """Train the tokenizer of a text."""
    from tokenizers import Tokenizer
    from tokenizers import decoders
    from tokenizers import models
    from tokenizers import pre_tokenizers
    from tokenizers import processors
    from tokenizers import trainers

    log.info("training a tokenizer of %d entries on %s, once", vocabulary, source.place)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BEGIN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    documents = (text for part, text in source.documents() if part == "train")
    tokenizer.train_from_iterator(documents, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    if tokenizer.get_vocab_size() < vocabulary:
        raise ValueError(
            f"The training part of {source.place} makes {tokenizer.get_vocab_size():,} entries, and "
            f"data.vocabulary={vocabulary}. Add text, or type a smaller number."
        )
    return tokenizer
