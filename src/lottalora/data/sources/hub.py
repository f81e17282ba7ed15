"""Files and tokenizers of the Hugging Face hub: found, downloaded, or refused in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lottalora.downloads import ensure
from lottalora.messages import last_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def read_tokenizer(folder: Path, *, repository: str, vocabulary: int) -> Tokenizer:
    """The fast tokenizer in tokenizer.json.

    Args:
        folder: that it lies in, or is downloaded to.
        repository: that publishes it.
        vocabulary: how many entries it has.

    Raises:
        FileNotFoundError: it is not there and cannot be downloaded.
        ValueError: it is no tokenizer, or another one.
    """
    from tokenizers import Tokenizer

    path = ensure(
        folder / "tokenizer.json",
        title=f"The tokenizer {folder.name}",
        source=f"{repository}/resolve/main/tokenizer.json",
        otherwise=(
            ", or name the folder above tokenizers/ with paths.data=FOLDER or LOTTALORA_DATA; "
            "data.sample=true needs no file."
        ),
    )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(
            f"{path} is no tokenizer ({last_line(error)}). Delete it and run again to download it anew."
        ) from error
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(
            f"{path} has a vocabulary of {tokenizer.get_vocab_size():,} entries, not the {vocabulary:,} of "
            f"{repository}. Delete it and run again to download that one."
        )
    return tokenizer
