"""Work done in several real processes on this machine, that know each other as those of one run do."""

import io
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable

import torch

from lottalora.distributed.launch import free_port
from lottalora.distributed.launch import joined


def start_all(work: Callable[[], object], *, processes: int = 2) -> list[multiprocessing.Process]:
    """Processes in which torchrun's variables are set; forked, so that nothing is imported again."""
    fork = multiprocessing.get_context("fork")
    port = free_port()
    started = [fork.Process(target=child, args=(work, rank, processes, port)) for rank in range(processes)]
    for process in started:
        process.start()
    return started


def child(work: Callable[[], object], rank: int, processes: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        work()
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def codes_of(started: list[multiprocessing.Process]) -> list[int]:
    """The exit code of each, once all have ended."""
    for process in started:
        process.join(100)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def joined_results(work: Callable[[], object], *, processes: int = 2) -> list:
    """What `work` gives in each of several processes that have joined."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(processes)]

    def answer() -> None:
        with joined():
            held = io.BytesIO()
            torch.save(work(), held)  # a tensor itself would be sent as a file of the process, which ends
            pipes[int(os.environ["RANK"])][1].send_bytes(held.getvalue())

    assert codes_of(start_all(answer, processes=processes)) == [0] * processes
    return [torch.load(io.BytesIO(receive.recv_bytes())) for receive, _ in pipes]
