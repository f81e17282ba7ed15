"""The provenance of a row: versions, commit, device, memory, time."""

import importlib.metadata
import platform
import resource
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path

import torch

from lottalora.results.ancestry import git

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "scikit-learn",
    "torchvision",
    "lottalora",
)


def provenance(
    device: torch.device, precision: str, commits: Sequence[str] = (), *, processes: int = 1
) -> dict:
    """Say where and with what a row was made.

    Args:
        device: of this process.
        precision: in Lightning's words.
        commits: of the code that trained, one after another; the present one where nothing did.
        processes: of the run, on a device each.
    """
    several = {"commits": list(commits)} if len(commits) > 1 else {}
    return several | {
        "peak_memory_mb": peak_memory_mb(device),
        "device": device_name(device, processes) + ("" if precision == "32-true" else f", {precision}"),
        "versions": versions(),
        "commit": commits[-1] if commits else commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_mb(device: torch.device) -> float:
    """MB of 10⁶ bytes: of the tensors on a GPU, else of the whole process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB


def device_name(device: torch.device, processes: int) -> str:
    """Name the device for the row: the GPU's model, or the CPU's architecture and threads."""
    many = f"{processes} × " if processes > 1 else ""
    if device.type == "cuda":
        return many + torch.cuda.get_device_name(device)
    return f"{many}{device.type}, {platform.machine()}, {torch.get_num_threads()} thread(s)"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this code, with -dirty where tracked files differ from it; "" where none tracks it.

    An installed package may lie inside a repository of its user's, which does not track it.
    """
    folder = Path(__file__).parent
    if not git("ls-files", folder=folder):
        return ""
    found = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=folder)
    return found[0] if found else ""
