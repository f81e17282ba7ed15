"""python server.py DESCRIPTOR: import torch and Lightning once, then fork a process for each command.

Nothing but imports happens in the server (and config files are read, see `warm_up`): no thread is started, no
number drawn. A command's process leaves the loop and runs the script at the top
level of this one, so that its traceback, its exit code, its `atexit` functions and its threads are as in a
process started cold. Where nothing went wrong it then ends at once: taking apart all that was imported is no
part of any test, and took half a second.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import socket
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Sequence
from pathlib import Path

IMPORTED = (  # what most commands need; a run of the digits imports no third-party module but these
    "hydra",
    "lottalora.config.check",
    "lottalora.experiment",
    "lottalora.tracking.epochs",
    "lottalora.tracking.progress",
    "lottalora.training.measure",
    "lottalora.results.provenance",
    "lottalora.data.digits",
    "lottalora.models.mlp",
    "lottalora.tasks.classification",
)
LARGEST = 1 << 20  # bytes of a request


def serve(asked: socket.socket) -> dict:
    """Fork a process for each request; return the request in the process that is to become the command.

    A request with "imports" in place of words forks another server, which imports those modules as well and
    is asked by the descriptor that came with the request.
    """
    running: dict[int, tuple[int, socket.socket]] = {}  # a process's descriptor → its number, who asked
    events = select.poll()
    events.register(asked, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready in running:
                events.unregister(ready)
                tell_end(ready, *running.pop(ready))
                continue
            message, descriptors, _, _ = socket.recv_fds(asked, LARGEST, 4)
            if not message:
                os._exit(0)  # the test process has ended
            request = json.loads(message)
            threads = os.listdir("/proc/self/task")
            assert len(threads) == 1, "a fork of a process with threads may hang"
            pid = os.fork()
            if not pid:
                close_all(asked, running)
                if "imports" in request:
                    import_all(request["imports"])
                    return serve(socket.socket(fileno=descriptors[0]))
                take(descriptors)
                return request
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            process = os.pidfd_open(pid)
            running[process] = (pid, socket.socket(fileno=descriptors[0]))
            events.register(process, select.POLLIN)
            if "words" in request:
                tell_start(pid, running[process][1])


def tell_start(pid: int, answers: socket.socket) -> None:
    """Send the number of a process that was forked, once its process group is set."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the process does it too
        os.setpgid(pid, pid)
    answers.send(b"%d" % pid)


def tell_end(process: int, pid: int, answers: socket.socket) -> None:
    """Send the exit code of a process that has ended to the one who asked, who may have gone."""
    _, status = os.waitpid(pid, 0)
    os.close(process)
    with answers, contextlib.suppress(OSError):
        answers.send(b"%d" % os.waitstatus_to_exitcode(status))


def close_all(asked: socket.socket, running: dict[int, tuple[int, socket.socket]]) -> None:
    """Close what is the server's alone, in a process that was forked from it."""
    asked.close()
    for process, (_, answers) in running.items():
        os.close(process)
        answers.close()


def take(descriptors: list[int]) -> None:
    """Give a forked process a group of its own, and the descriptors that were sent with the request."""
    os.setpgid(0, 0)
    answers, *standard = descriptors
    os.close(answers)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)


def import_all(names: Sequence[str]) -> None:
    """Import modules, and leave out of each command's end what they would do at that of their process."""
    for name in names:
        importlib.import_module(name)
    for finalizer in list(weakref.finalize._registry):
        finalizer.atexit = False
    gc.collect()
    gc.freeze()  # so that a collection in a command does not copy every page


def warm_up() -> None:
    """Read the config files of usual runs, and let Hydra's grammar build what it does at the first words."""
    from hydra import compose
    from hydra import initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    from lottalora import CONF
    from lottalora.config import loader

    OverridesParser.create().parse_overrides(
        ["a=b", "a.b=1e-3", "+a=1,2", "~a", "a=[b]", "a={b:null}", "a='/b'"]
    )
    loader.install()
    with initialize_config_dir(str(CONF), version_base="1.3"), loader.interpolations_parsed_once():
        for words in ([], ["data=digits"], ["data=digits", "mode=baseline"]):
            OmegaConf.to_container(compose("config", overrides=words), resolve=True)


def become(request: dict, elsewhere: list[str]) -> list[str]:
    """Put this process in the state in which Python would start the command; return its words."""
    first, *rest = request["words"]
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    own = {"-c": "", "-m": os.getcwd()}.get(first, os.path.dirname(os.path.abspath(first)))
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [own, *path, *(part for part in elsewhere if part not in path)]
    sys.argv[:] = [first, *rest] if first not in ("-c", "-m") else [first, *rest[1:]]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    importlib.invalidate_caches()
    sys.excepthook = show
    return request["words"]


def installed_path() -> list[str]:
    """sys.path of a Python that is started without PYTHONPATH: an editable install adds its source there."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)


def show(kind: type, error: BaseException, trace: types.TracebackType | None) -> None:
    """Print an uncaught error without the frames that are not the command's."""
    while trace and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>", runpy.__file__):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def run(words: list[str]) -> None:
    first, *rest = words
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if first == "-c":
        name, code = "<string>", rest[0]
    else:
        name = main.__file__ = os.path.abspath(first)
        code = Path(name).read_bytes()
    exec(compile(code, name, "exec"), main.__dict__)


def end(code: int) -> None:
    """End as Python does, without taking modules apart; return where what was printed cannot be written."""
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python says so, and ends with 120
    os._exit(code)


if __name__ == "__main__":
    way = socket.socket(fileno=int(sys.argv[1]))
    elsewhere = installed_path()
    from lottalora.tasks.imports import before_lightning

    before_lightning()
    warm_up()
    import_all(IMPORTED)
    try:
        run(become(serve(way), elsewhere))
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            end((error.code or 0) & 0xFF)
        raise
    end(0)
