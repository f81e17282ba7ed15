"""A pool of processes on this machine, one run each. Linux.

The parent imports torch once and forks for each run, so a run starts in milliseconds with nothing left over
from the one before it, and a run that is killed takes nothing with it.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait
from pathlib import Path

from lottalora.distributed.children import cause_of_death
from lottalora.distributed.children import die_with
from lottalora.distributed.cores import cores

GRACE = 10.0  # seconds that a run has to end after SIGTERM
GPU_DEVICES = ("nvidia*", "nvhost*", "kfd", "dxg")  # in /dev: NVIDIA's, Tegra's, AMD's, and Windows' in WSL


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: what the child calls, and where its output goes.

    Args:
        work: gives None, or the cause of a failure in one line.
        log: file that takes the output, appended; None leaves the output where it is.
    """

    work: Callable[[], str | None]
    log: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How the job at this position ended: cause is None if all went well; died: its process said nothing.
    What it had to import is what the parent had better import too."""

    index: int
    cause: str | None
    died: bool
    seconds: float
    imported: list[str]


@dataclass(frozen=True, kw_only=True)
class Running:
    index: int
    process: multiprocessing.Process
    report: Connection
    slot: int
    begin: float


def run_all(jobs: Sequence[Job], slots: Sequence[dict[str, str]]) -> Generator[Ended]:
    """Run the jobs, as many at once as there are slots, and give each end when it comes.

    Whoever stops iterating stops the pool: what still runs is ended.

    Args:
        jobs: in order of their start.
        slots: environment variables of each worker, such as the GPU that it sees.
    """
    waiting = deque(enumerate(jobs))
    free = list(range(len(slots)))[::-1]
    running: dict[Connection, Running] = {}
    try:
        while waiting or running:
            while waiting and free:
                started = start(*waiting.popleft(), slot=free.pop(), slots=slots)
                running[started.report] = started
            for ready in wait([each.report for each in running.values()]):
                ended = running.pop(ready)
                free.append(ended.slot)
                yield end_of(ended)
    finally:
        stop([each.process for each in running.values()])


def start(index: int, job: Job, *, slot: int, slots: Sequence[dict[str, str]]) -> Running:
    """Fork a process for the job."""
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=child, args=(send, job, slots[slot], os.getpid()))
    process.start()
    send.close()
    return Running(index=index, process=process, report=receive, slot=slot, begin=time.monotonic())


def child(send: Connection, job: Job, environment: dict[str, str], parent: int) -> None:
    """Run the job in the forked process; send its cause of failure and the modules it imported."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    die_with(parent)
    os.environ.update(environment)
    if job.log:
        redirect(job.log)
    before = set(sys.modules)
    cause = job.work()
    send.send((cause, [name for name in list(sys.modules) if name not in before]))
    sys.exit(0 if cause is None else 1)


def redirect(log: Path) -> None:
    """Append standard output and error, of C libraries too, to a file. If that fails, the run says why."""
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)


def end_of(ended: Running) -> Ended:
    """Join an ended process and return what it reported, or how it died."""
    died, imported = False, []
    try:
        cause, imported = ended.report.recv()
        ended.process.join()
    except EOFError:
        ended.process.join()
        died, cause = True, cause_of_death(ended.process.exitcode)
    ended.report.close()
    seconds = time.monotonic() - ended.begin
    return Ended(index=ended.index, cause=cause, died=died, seconds=seconds, imported=imported)


def stop(processes: Sequence[multiprocessing.Process]) -> None:
    """Terminate the processes; kill those that are still alive after the grace period."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def check_workers(workers: object) -> None:
    """Refuse a number of runs at once that is neither a whole number, 1 or more, nor None."""
    if workers is not None and (type(workers) is not int or workers < 1):
        raise ValueError(
            f"hydra.launcher.workers must be a whole number, 1 or more, or null, got {workers!r}."
        )


def slots_of(workers: int | None, accelerator: str) -> list[dict[str, str]]:
    """The environment of each worker: a GPU each where there are any; else one worker for each core."""
    devices = [] if accelerator == "cpu" else visible_gpus()
    return shared_out(devices, workers) if devices else [{}] * (workers or cores())


def shared_out(devices: Sequence[str], workers: int | None) -> list[dict[str, str]]:
    """A device for each worker; where there are more workers than devices, the devices in turn."""
    count = workers or len(devices)
    return [{"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} for index in range(count)]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES spells them. Starts no CUDA context.

    Where Linux shows no device of a GPU, PyTorch is not asked: importing it takes two seconds.
    """
    if sys.platform == "linux" and not any([*Path("/dev").glob(name)] for name in GPU_DEVICES):
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]
