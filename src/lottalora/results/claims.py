"""Claims: which process runs which cell. The kernel frees a claim's lock however its process ends.

The lock is POSIX's (fcntl), not flock's: it belongs to exactly one process, so no child that outlives its
parent keeps it, network file systems carry it between nodes, and others can look at it without taking it.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from pathlib import Path

FLOCK = "@hhqqi4x"  # Linux's struct flock: l_type, l_whence, l_start, l_len, l_pid
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)
log = logging.getLogger(__name__)


def path_of(digest: str, results: Path) -> Path:
    """Return the path of the claim on the run with this digest."""
    return Path(results, "claims", f"{digest}.lock")


@contextlib.contextmanager
def claimed(digest: str, results: Path, *, log_file: Path | None = None) -> Iterator[dict | None]:
    """Acquire the claim on a cell and yield None, or yield the holder's note."""
    path = path_of(digest, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not lock(descriptor, path):
                yield read(path) or {"pid": None}
                return
            if not is_still(descriptor, path):
                continue  # its last holder removed the file between our opening and our locking it
            write(descriptor, log_file)
            try:
                yield None
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def lock(descriptor: int, path: Path) -> bool:
    """Take the lock; return False if another process has it. Without working locks, warn and return True."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in NO_LOCKS:
            raise
        log.warning("no locks on the file system of %s: two processes may run one cell twice", path.parent)
    return True


def is_still(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at `path`."""
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def write(descriptor: int, log_file: Path | None) -> None:
    """Note in the claim who holds it: host, process, start and log."""
    note = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": datetime.now(UTC).isoformat(timespec="seconds"),
        "log": str(log_file or ""),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(note).encode(), 0)


def read(path: Path) -> dict | None:
    """Return the holder's note, or None where there is none to be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def holder(digest: str, results: Path) -> dict | None:
    """Return the note of the process that runs this cell, or None. Takes no lock.

    Never to be called for a cell that this very process holds: closing the file would free its claim.
    """
    path = path_of(digest, results)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack(FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else read(path) or {"pid": None}


def all_held(results: Path) -> dict[str, dict]:
    """Digest → who runs it, over all claims of a results folder."""
    digests = sorted(path.stem for path in Path(results, "claims").glob("*.lock"))
    held = {digest: holder(digest, results) for digest in digests}
    return {digest: note for digest, note in held.items() if note}


def log_skipped(name: str, note: dict) -> None:
    """Log that another process runs this cell."""
    log.info("skipped: %s is run %s", name, holder_text(note))


def holder_text(note: dict) -> str:
    """Say who holds a claim, from the note that `claimed` or `holder` gave."""
    if note["pid"] is None:
        return "by another process"
    return f"by process {note['pid']} on {note['host']} since {note['start']}"
