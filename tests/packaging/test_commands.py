"""Commands that are forked from the server behave like those started cold."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).parents[2]


def cold(*words, **settings):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **settings)


@pytest.mark.parametrize(
    "words",
    [
        ("-c", "import sys; sys.exit(7)"),
        ("-c", "import sys; sys.exit('a word')"),
        ("-c", "print('written'); 1 / 0"),
        ("-c", "import atexit; atexit.register(print, 'at the end')"),
        ("-c", "import os; os.kill(os.getpid(), 9)"),
        ("-c", "import os, sys; print(os.getcwd(), sys.argv, sys.path, __name__)", "a", "b c"),
        ("-c", "import os; print(sorted(os.environ.items()))"),
        ("-c", "import os, sys; print(os.isatty(0), os.isatty(1), sys.stdin.read())"),
        ("-m", "lottalora", "report", "--hlep"),
        ("-m", "lottalora", "rwos"),
        ("run.py", "rank=-1"),
        ("script.py", "a"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_outcome_is_that_of_a_cold_start(words, tmp_path):
    (tmp_path / "script.py").write_text(
        "import sys\ndef f():\n    raise KeyError(sys.argv, sys.path[0])\nf()\n"
    )
    (tmp_path / "run.py").symlink_to(ROOT / "run.py")
    words = [str(ROOT / "run.py"), *words[1:]] if words[0] == "run.py" else words
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": str(tmp_path), "WORD": "a"}
    env |= {"LC_CTYPE": "C.UTF-8"}
    ours = commands.run(*words, cwd=tmp_path, env=env)
    theirs = cold(*words, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL)
    assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)


def test_command_runs_the_code_of_this_checkout_on_one_thread():
    code = "import os, lottalora; print(lottalora.__file__, len(os.listdir('/proc/self/task')))"
    assert commands.run("-c", code).stdout == f"{ROOT}/src/lottalora/__init__.py 1\n"


def test_commands_draw_other_numbers_and_start_torch_from_the_same():
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first, second = (commands.run("-c", code).stdout.split() for _ in range(2))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, False, True]


def test_command_has_a_process_group_and_is_ended_by_a_signal():
    command = commands.start("-c", "import time; time.sleep(60)")
    assert os.getpgid(command.pid) == command.pid
    assert command.poll() is None
    command.terminate()
    assert command.wait(10) == command.returncode == -signal.SIGTERM
    command.terminate()  # as of a Popen: nothing happens after the end


def test_command_that_takes_too_long_is_killed_with_its_children(tmp_path):
    code = "import os, time; os.fork(); open(str(os.getpid()), 'w'); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired):
        commands.run("-c", code, cwd=tmp_path, timeout=1)
    pids = os.listdir(tmp_path)
    end = time.monotonic() + 10
    while [pid for pid in pids if alive(pid)] and time.monotonic() < end:
        time.sleep(0.01)
    assert [alive(pid) for pid in pids] == [False, False]


def alive(pid: str) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"
