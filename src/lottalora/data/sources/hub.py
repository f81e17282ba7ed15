"""Files and tokenizers of the Hugging Face hub: found, downloaded, or refused in one clear line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lottalora.data.sources.files import download_file
from lottalora.errors import last_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def ensure(path: Path, *, title: str, source: str, otherwise: str) -> Path:
    """The file at `path`, downloaded first if it is not there.

    Args:
        path: where it lies.
        title: what it is, in messages.
        source: its address on the hub, REPOSITORY/resolve/main/FILE; a data set's begins datasets/.
        otherwise: what to do where it cannot be had.

    Raises:
        FileNotFoundError: it is not there and cannot be downloaded.
    """
    if path.exists():
        return path
    url = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}/{source}"
    try:
        download_file(url, path)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{title} is not at {path} and could not be downloaded ({last_line(error)}). "
            f"Put {url} there{otherwise}"
        ) from error
    return path


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
