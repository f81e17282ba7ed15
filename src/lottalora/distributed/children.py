"""Child processes: tie their life to the parent, and say how one ended."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def cause_of_death(code: int) -> str:
    """Say in words how a process ended that reported nothing."""
    if code >= 0:
        return f"the process ended with exit code {code} before its row was written"
    name = signal.Signals(-code).name
    hint = "; if nobody sent it, the machine ran out of memory" if name == "SIGKILL" else ""
    return f"the process was killed by {name}{hint}"
