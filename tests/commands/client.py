"""The side of the test: a handle like subprocess.Popen's."""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(__file__).with_name("server.py")
LARGEST = 1 << 20  # bytes of a request
HUGGING_FACE = ("transformers.models.llama.modeling_llama", "transformers.models.vit.modeling_vit")
GRAPHS = ("torch_geometric.nn", "sklearn.metrics")
PACKAGES = {  # of a model that imports much when it is built
    "gpt": HUGGING_FACE,
    "vit": HUGGING_FACE,
    "vit_random": HUGGING_FACE,
    "gcn": GRAPHS,
    "gin": GRAPHS,
}


class Command:
    """A command that runs; `pid`, `returncode`, `poll`, `wait`, `communicate`, `send_signal` as of a Popen.

    Args:
        words: what follows `python` on the command line: a script, -m MODULE or -c CODE, and its arguments.
        cwd: its folder; None: that of the test.
        env: its whole environment; None: that of the test.
        stdout, stderr: descriptors; None: captured, for `communicate`.
    """

    def __init__(
        self,
        words: tuple[str, ...],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = [sys.executable, *map(str, words)]
        self.returncode: int | None = None
        self.files: list[IO[bytes] | None] = []
        self.answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {
            "words": self.args[1:],
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        with theirs, open(os.devnull, "rb") as nothing:
            self.files = [
                None if given is not None else tempfile.TemporaryFile() for given in (stdout, stderr)
            ]
            out, err = (
                given if file is None else file.fileno()
                for given, file in zip((stdout, stderr), self.files, strict=True)
            )
            message = json.dumps(request).encode()
            assert len(message) < LARGEST
            socket.send_fds(
                server(imports_of(words)), [message], [theirs.fileno(), nothing.fileno(), out, err]
            )
        self.pid = int(self.answers.recv(64))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, or minus the number of the signal that ended it."""
        if self.returncode is None:
            self.answers.settimeout(0.0 if timeout == 0 else timeout)
            try:
                answer = self.answers.recv(64)
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout) from None
            assert answer, "the server of commands has lost this one"
            self.returncode = int(answer)
            self.answers.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """What it has written to stdout and stderr, once it has ended; None for what is not captured."""
        self.wait(timeout)
        written = []
        for file in self.files:
            if file is not None:
                file.seek(0)
            written.append(None if file is None else file.read().decode().replace("\r\n", "\n"))
        return tuple(written)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(*words: str, **settings: object) -> Command:
    """Start `python WORDS`; the settings are those of Command."""
    return Command(words, **settings)


def run(*words: str, timeout: float = 300, **settings: object) -> subprocess.CompletedProcess:
    """Run `python WORDS` to its end. What takes longer than `timeout` seconds is killed with its group."""
    command = start(*words, **settings)
    try:
        out, err = command.communicate(timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(command.pid, signal.SIGKILL)
        command.wait()
        raise
    return subprocess.CompletedProcess(command.args, command.returncode, out, err)


def imports_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """The packages that a command imports and that take seconds, told by the model that it names."""
    models = [word.removeprefix("model=") for word in map(str, words) if word.startswith("model=")]
    return PACKAGES.get(models[0], ()) if len(models) == 1 else ()


@functools.cache
def server(imports: tuple[str, ...]) -> socket.socket:
    """The way to this process's server that has these imports too; it ends when the way is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGEST)
    with theirs:
        if imports:
            socket.send_fds(server(()), [json.dumps({"imports": imports}).encode()], [theirs.fileno()])
        else:
            start_server(theirs)
    return ours


def start_server(asked: socket.socket) -> None:
    alone = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    alone["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow, which PyG imports
    subprocess.Popen(
        [sys.executable, str(SERVER), str(asked.fileno())],
        env=os.environ | alone | {"PYTHONPATH": str(ROOT / "src"), "OMP_WAIT_POLICY": "PASSIVE"},
        cwd=ROOT,
        pass_fds=[asked.fileno()],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
