"""Keep glibc from returning freed memory to the system."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def retain_freed_memory() -> None:
    """Let freed memory stay with this process, where the C library is glibc.

    Otherwise a tensor of many megabytes goes back to the system as soon as it is freed and comes again page
    by page, which on a CPU takes five times as long as the sum that fills it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)
