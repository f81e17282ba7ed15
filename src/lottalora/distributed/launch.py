"""One run on several devices: one process each; rank 0 alone holds the claim, logs and writes.

torchrun or srun start the processes; else the plain command does, for the devices of this machine.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import distributed

from lottalora.distributed.children import cause_of_death
from lottalora.distributed.children import die_with
from lottalora.distributed.collectives import broadcast
from lottalora.distributed.collectives import is_first
from lottalora.distributed.collectives import process_rank
from lottalora.distributed.collectives import world_size
from lottalora.distributed.environment import RUN
from lottalora.distributed.environment import launched
from lottalora.errors import cause_of
from lottalora.errors import in_one_line

GRACE = 30.0  # seconds in which the first process may say why another has ended
FAILED = "lottalora/failed"  # key, in the store that the processes share, of what failed first
PARENT = "LOTTALORA_PARENT"  # the process that has started this one as a part of its run
PORTS = 15_000  # from here on, by the number of the Slurm job
HANDED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
Together = Callable[[], AbstractContextManager]


def run_on_devices(lead: Callable[[Together], None], follow: Callable[[], None], devices: int) -> None:
    """Do one run in as many processes as there are devices.

    Args:
        lead: what the first process does. It is given a context, in which the others run beside it; if it
            never enters that, there was nothing to do and they end.
        follow: what each of the others does. Why one of them fails is said by the first.
        devices: how many.
    """
    if not launched():
        sys.exit(start(devices))
    with joined():
        if is_first():
            lead_others(lead)
        elif broadcast(None):
            follow_first(follow)


def lead_others(lead: Callable[[Together], None]) -> None:
    """Run `lead` on rank 0; it gets the context manager in which the others take part."""
    waiting = True

    @contextlib.contextmanager
    def together() -> Iterator[None]:
        nonlocal waiting
        waiting = not broadcast(True)
        try:
            yield
        except Exception as error:
            if in_one_line(error) is None:  # a connection that was lost, perhaps
                raise_what_failed_first()
            raise

    try:
        lead(together)
    finally:
        if waiting:
            broadcast(False)


def follow_first(follow: Callable[[], None]) -> None:
    """Run `follow` on another rank; on an error, leave a note for rank 0 and exit with code 1."""
    try:
        follow()
    except (Exception, KeyboardInterrupt) as error:
        note = {
            "number": process_rank(),
            "line": in_one_line(error) if isinstance(error, Exception) else None,
        }
        note |= {"cause": cause_of(error), "trace": traceback.format_exc()}
        with contextlib.suppress(RuntimeError):  # the first process has ended, and has said why
            store().compare_set(FAILED, "", json.dumps(note))
        sys.exit(1)


def raise_what_failed_first() -> None:
    """Raise the error of another process, if one has left any."""
    if not store().check([FAILED]):
        return
    note = json.loads(store().get(FAILED))
    where = f"process {note['number'] + 1} of {world_size()}"
    if note["line"]:
        raise ValueError(f"{note['line']} (in {where})")
    raise RuntimeError(f"{note['cause']} (in {where})\n{note['trace']}")


def store() -> distributed.Store:
    """Return the key-value store of the process group."""
    return distributed.distributed_c10d._get_default_store()


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Hold the process group open inside the block. Weights are compared over it, never sent."""
    if PARENT in os.environ:
        die_with(int(os.environ[PARENT]))
    if "RANK" not in os.environ:
        os.environ |= as_torchrun_says(os.environ)
    if (
        os.environ["RANK"] != "0"
    ):  # Ctrl-C and the signals of a cluster reach all; the first process ends the run
        for each in (signal.SIGINT, *HANDED_ON):
            signal.signal(each, signal.SIG_IGN)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def as_torchrun_says(slurm: dict[str, str]) -> dict[str, str]:
    """Return srun's variables for this process under torchrun's names."""
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = int(slurm.get("SLURM_STEP_NUM_NODES", 1))
    tasks = int(slurm["SLURM_STEP_NUM_TASKS"])
    if tasks % nodes:
        raise ValueError(
            f"srun started {tasks} processes on {nodes} nodes, not as many on each. "
            "Type srun --nodes=N --ntasks-per-node=M."
        )
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "GROUP_RANK": slurm["SLURM_NODEID"],
        "WORLD_SIZE": str(tasks),
        "LOCAL_WORLD_SIZE": str(tasks // nodes),
        "MASTER_ADDR": SLURMEnvironment.resolve_root_node_address(slurm["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(PORTS + int(slurm["SLURM_JOB_ID"]) % 10_000),
    }


def start(devices: int) -> int:
    """Start this run once for each device of this machine; return the exit code of the first process."""
    shared = {
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        PARENT: str(os.getpid()),
        "TORCH_CPP_LOG_LEVEL": os.environ.get(
            "TORCH_CPP_LOG_LEVEL", "ERROR"
        ),  # no stack of a lost connection
    }
    processes = [
        subprocess.Popen(
            [*RUN, *sys.argv[1:]],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"},
        )
        for rank in range(devices)
    ]
    for each in HANDED_ON:
        signal.signal(each, lambda received, _: processes[0].send_signal(received))
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the processes without us
    try:
        return end_of(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def end_of(processes: Sequence[subprocess.Popen]) -> int:
    """The exit code of the first process, which ends soon after any other has failed."""
    first, *others = processes
    while first.poll() is None and not any(other.poll() for other in others):
        time.sleep(0.05)
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    killed = [process for process in processes if (process.returncode or 0) < 0]
    if killed:
        died = processes.index(killed[0]) + 1
        cause = cause_of_death(killed[0].returncode)
        sys.stderr.write(f"process {died} of {len(processes)}: {cause}\n")
    return first.returncode if first.returncode is not None and first.returncode >= 0 else 1


def free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
