"""A sweep that a signal asks to end stops its runs, which keep what they need to go on."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):  # noqa: N818  an end of the sweep, not an error
    """SIGTERM or SIGUSR1 asks the sweep to end."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """A context manager in which SIGTERM and SIGUSR1 raise `Stopped`, once; the pool then ends its runs."""

    def stop(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise Stopped

    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    heard = [number for number in SIGNALS if main and signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.getsignal(number) for number in heard}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
