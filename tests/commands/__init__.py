"""Run `python run.py …` or `python -m lottalora …` for a test, in a process that has torch already.

`run` and `start` are what subprocess.run and subprocess.Popen are for, with output captured: a process of its
own with its own process group, folder, environment, descriptors and exit code. It is forked from a server
(server.py) that has imported torch and Lightning and read config files once; each pytest process has one,
and for models built of transformers or PyG another that has imported these too (PACKAGES in client.py).

Started cold, by subprocess, stay the tests to whose point it belongs: what is imported at all
(tests/packaging/test_imports.py, `help` and `dry_run` in tests/suite/test_run.py), another source tree (the
additions in tests/packaging/test_readme.py, the bug in tests/suite/test_bad_input.py, the wheel in
tests/packaging/test_wheel.py), a run from end to end (the forced run in tests/suite/test_run.py), torchrun
and the processes of several devices (tests/suite/test_devices.py), the jobs of Slurm (tests/slurm), the
benchmark scripts and scripts/kill_sweep.py.
"""

from tests.commands.client import Command
from tests.commands.client import run
from tests.commands.client import start

__all__ = ["Command", "run", "start"]
