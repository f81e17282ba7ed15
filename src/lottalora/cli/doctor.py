"""Check packages, devices, data, disk, network, W&B and Slurm: one line each, a remedy for each problem."""

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from lottalora.cli.data_check import data_sets
from lottalora.cli.finding import Check
from lottalora.cli.finding import version
from lottalora.distributed.cores import cores
from lottalora.tracking import wandb_login as account
from lottalora.uncaught import missing_package

HELP = "what is installed and found here, and what to do about the rest"
NEEDED = (
    "torch",
    "numpy",
    "safetensors",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "rich",
)
OPTIONAL = (
    *("torchvision", "scikit-learn", "ncps", "torch-geometric", "ogb", "transformers"),  # of benchmarks
    *("minari", "h5py", "datasets", "gymnasium", "mujoco"),  # of HalfCheetah
    *("matplotlib", "pandas", "scipy", "statsmodels", "jinja2"),  # of reports
    *("huggingface-hub", "shtab", "wandb", "tensorboard", "hydra-submitit-launcher"),
)
OTHERS = ("torch", "numpy", "safetensors", "tensorboard", "hydra-submitit-launcher")
SUITE = tuple(each for each in (*NEEDED, *OPTIONAL) if each not in OTHERS)  # what the extra `suite` brings
LITTLE_DISK = 2e9  # bytes
MIRROR = "ossci-datasets.s3.amazonaws.com"  # where torchvision downloads MNIST from
PATIENCE = 3.0  # seconds without an answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of lines")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR",
                        help="folder that results would go to (default: results)")  # fmt: skip


def run(asked: argparse.Namespace) -> int:
    """Print every check; 1 if something without which no run is possible is broken."""
    checks = list(examine(asked.results))
    if asked.json:
        sys.stdout.write(json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(f"{line(check)}\n" for check in checks))
    return 1 if any(check.state == "broken" for check in checks) else 0


def line(check: Check) -> str:
    """Format a check as one line."""
    remedy = f"  → {check.remedy}" if check.remedy else ""
    return f"{check.state:<6} {check.name:<12} {check.found}{remedy}"


def examine(results: Path) -> Iterator[Check]:
    """Every check; one that fails itself is a finding and not a traceback."""
    looks: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("packages", packages),
        ("devices", devices),
        ("data", data_sets),
        ("results", lambda: disk(results)),
        ("rows", lambda: commits_of_rows(results)),
        ("network", network),
        ("wandb", weights_and_biases),
        ("slurm", slurm),
    ]
    for name, look in looks:
        try:
            yield from look()
        except ModuleNotFoundError as error:
            remedy = missing_package(error) or "please report this"
            yield Check(name=name, state="note", found=f"not looked at: {error}", remedy=remedy)
        except Exception as error:  # whatever an odd machine does, the other checks are still worth printing
            found = f"could not be looked at: {type(error).__name__}: {error}"
            yield Check(name=name, state="note", found=found, remedy="please report this")


def packages() -> Iterator[Check]:
    """Check Python's version and the packages of the library and the suite."""
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check(
        name="python",
        state="ok" if good else "broken",
        found=platform.python_version(),
        remedy="" if good else "use Python 3.11, 3.12 or 3.13",
    )
    found = {package: version(package) for package in (*NEEDED, *OPTIONAL)}
    suite_lacks = [package for package in SUITE if found[package] is None]
    if len(suite_lacks) > 1:  # the library alone was installed
        lacking = f"{len(suite_lacks)} of {len(SUITE)} packages not installed: {', '.join(suite_lacks)}"
        yield Check(name="suite", state="broken", found=lacking, remedy="pip install 'lottalora[suite]'")
    for package, installed in found.items():
        if installed is not None:
            yield Check(name=package, state="ok", found=installed)
        elif len(suite_lacks) < 2 or package not in SUITE:
            state = "broken" if package in NEEDED else "note"
            yield Check(name=package, state=state, found="not installed", remedy=f"pip install {package}")


def devices() -> Iterator[Check]:
    """Check that torch can be imported; list GPUs, cores and threads."""
    try:
        import torch
    except Exception as error:  # a broken build raises whatever it likes
        yield Check(
            name="torch",
            state="broken",
            found=f"cannot be imported: {type(error).__name__}: {error}",
            remedy="make install",
        )
        return
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = ", ".join(names) or "no GPU; runs use the CPU"
    yield Check(name="devices", state="ok", found=found)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Check(name="threads", state="ok", found=f"{cores()} cores; OMP_NUM_THREADS {threads}")


def disk(results: Path) -> Iterator[Check]:
    """Check that results can be written, and the free space there."""
    place = results.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        remedy = "set paths.results=DIR to a writable folder"
        yield Check(name="results", state="broken", found=f"{place} cannot be written", remedy=remedy)
        return
    little = free < LITTLE_DISK
    yield Check(
        name="results",
        state="note" if little else "ok",
        found=f"{free / 1e9:.1f} GB free at {place}",
        remedy="free some space, or set paths.results=DIR" if little else "",
    )


def commits_of_rows(results: Path) -> Iterator[Check]:
    """Rows whose code is in no history here; no row at all is no finding."""
    from lottalora.results import rows
    from lottalora.results.ancestry import ancestors
    from lottalora.results.ancestry import lost_commits
    from lottalora.results.command import command_of

    found, _ = rows.read_all(results)
    if not found:
        return
    if ancestors(Path(__file__).parent) is None:
        said = f"{len(found)}; whether the history has their code is unknown: it is shallow or absent here"
        yield Check(name="rows", state="ok", found=said)
        return
    lost = lost_commits({row["commit"] for row in found})
    again = [row for row in found if row["commit"] in lost]
    yield Check(
        name="rows",
        state="note" if again else "ok",
        found=f"{len(again)} of {len(found)} made by code that is in no history here"
        + (f" ({', '.join(sorted(commit[:8] for commit in lost))})" if lost else ""),
        remedy=f"run them again, as by: {command_of(again[0])} force=true" if again else "",
    )


def network() -> Iterator[Check]:
    """Check whether the network can be reached, by the server that torchvision downloads MNIST from."""
    try:
        socket.create_connection((MIRROR, 443), PATIENCE).close()
        yield Check(name="network", state="ok", found=f"{MIRROR} answers")
    except OSError as error:
        remedy = "data sets must lie on disk, and W&B runs offline; behind a proxy this may be no fault"
        yield Check(name="network", state="note", found=f"{MIRROR} does not answer ({error})", remedy=remedy)


def weights_and_biases() -> Iterator[Check]:
    """Check for a W&B key, and whether its server answers."""
    if not account.has_key():
        yield Check(
            name="wandb key", state="note", found=f"none for {account.server()}", remedy=account.LOG_IN
        )
        return
    answers = account.reachable()
    yield Check(
        name="wandb key",
        state="ok" if answers else "note",
        found=f"found; {account.server()} {'answers' if answers else 'does not answer'}",
        remedy=""
        if answers
        else "runs go offline by themselves; send them later with `python -m lottalora sync`",
    )


def slurm() -> Iterator[Check]:
    """Check for Slurm and list its partitions."""
    if shutil.which("sinfo") is None:
        remedy = "needed on a cluster only; there, log in to a node that has sinfo and sbatch"
        yield Check(name="slurm", state="note", found="sinfo is not on the PATH", remedy=remedy)
        return
    command = ["sinfo", "--noheader", "--format=%P %a %D"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        said = (asked.stdout or asked.stderr).strip().splitlines()
    except subprocess.TimeoutExpired:
        asked, said = None, [f"sinfo gave no answer in {PATIENCE:.0f} s"]
    if asked is None or asked.returncode:
        remedy = "no controller answers: start slurmctld, or ask whoever runs the cluster"
        yield Check(name="slurm", state="note", found=said[-1] if said else "sinfo failed", remedy=remedy)
        return
    yield Check(name="slurm", state="ok", found="partitions (name, state, nodes): " + "; ".join(said))
