"""Download files, each whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from lottalora.messages import last_line
from lottalora.results.atomic_write import write_whole

NETWORK_PATIENCE = 20  # seconds without an answer


def download_file(url: str, path: Path, *, hash_prefix: str | None = None) -> None:
    """Bring a file, which appears whole or not at all.

    Args:
        url: where it is published.
        path: where it goes.
        hash_prefix: how its SHA-256 begins, where that is known.

    Raises:
        OSError: it could not be had, or is another file.
    """
    content = published(url)
    if hash_prefix and not hashlib.sha256(content).hexdigest().startswith(hash_prefix):
        raise OSError(f"{url} sent another file: its SHA-256 does not begin with {hash_prefix}")
    write_whole(path, content)


def published(url: str) -> bytes:
    """Return the content of an address; raise OSError where it cannot be read to its end."""
    request = urllib.request.Request(url, headers={"User-Agent": "lottalora"})
    try:
        with patience(), urllib.request.urlopen(request) as answer:
            return answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{url} broke off: {error}") from error


def hub() -> str:
    """The address of the Hugging Face hub, or of its mirror that HF_ENDPOINT names."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def reach(url: str) -> None:
    """Raise an OSError at once where a server cannot be reached, as some clients try for minutes."""
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "lottalora"})
    try:
        with patience(), urllib.request.urlopen(request):
            return
    except urllib.error.HTTPError:
        return  # it answers, if only to refuse this question
    except http.client.HTTPException as error:
        raise OSError(f"{url} broke off: {error}") from error


@contextlib.contextmanager
def patience(seconds: float = NETWORK_PATIENCE) -> Iterator[None]:
    """Inside the block a network that does not answer for so long is an error."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


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
    url = f"{hub()}/{source}"
    try:
        download_file(url, path)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"{title} is not at {path} and could not be downloaded ({last_line(error)}). "
            f"Put {url} there{otherwise}"
        ) from error
    return path
