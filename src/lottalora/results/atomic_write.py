"""Write files whole or not at all, however the process ends."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, limit of a file's size


def write_whole(path: Path, content: str | bytes | memoryview, *, setting: str = "paths.results=DIR") -> None:
    """Put `content` at `path` in one step: a temporary file beside it, flushed to the disk, then renamed.

    Args:
        path: the file, which is replaced.
        content: of the file.
        setting: what names another place, in the error.

    Raises:
        OSError: the disk is full, or the folder cannot be written; one sentence that says so.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flush_to(temporary, content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(error, path, setting) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def flush_to(path: Path, content: bytes | memoryview) -> None:
    """Write a new file and wait until it is on disk; raise FileExistsError if it exists."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unwritable(error: OSError, path: Path, setting: str = "paths.results=DIR") -> OSError:
    """Return an error of the same type whose message says in one sentence what to do."""
    reason = error.strerror or str(error)
    remedy = f"Set {setting} to a writable folder."
    if error.errno in FULL:
        remedy = f"Make room, or set {setting} to another disk, and repeat the command to go on."
    return type(error)(f"Cannot write {path}: {reason}. {remedy}")
