"""Write an artifact in another format, read it back, and compare."""

import contextlib
import importlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError

from lottalora.artifacts.export.model import load_model
from lottalora.results.atomic_write import unwritable

TARGETS = {  # what is written → the module that writes and reads it
    "state_dict": "state_dict",
    "transformers": "hugging_face",
    "onnx": "onnx_graph",
    "peft": "peft_folder",
}
TOLERANCE = 1e-4  # of the largest output


def export(path: Path, target: str, out: Path) -> float | None:
    """Write an artifact in another format, whole or not at all.

    Args:
        path: the artifact.
        target: one of TARGETS.
        out: the file or folder to write.

    Returns:
        The largest difference between the output of what was written, read back, and that of the artifact's
        net, over the latter's largest value; None if the artifact stores no inputs and none can be made.

    Raises:
        FileExistsError: `out` exists.
        FileNotFoundError: the folder that it is to lie in does not.
        OSError: the disk is full, or the folder cannot be written.
        ValueError: the artifact is damaged, or cannot be written in this format; or the outputs differ.
        ModuleNotFoundError: a package of lottalora[export] is missing.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists. Name another file or folder.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is no folder. Make it, or name another one.")
    kind = importlib.import_module(f"lottalora.artifacts.export.{TARGETS[target]}")
    model = load_model(path)
    begun = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
    try:
        with unwritable_said(out):
            kind.write(model, begun)
        difference = None
        if model.output is not None:
            with torch.no_grad():
                output = kind.output(model, begun)
            difference = relative_difference(output, model.output)
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"{target} computes outputs that differ by {difference:.1e} of the largest from those of "
                    f"{path}; {TOLERANCE:g} is allowed. Nothing was written."
                )
        with unwritable_said(out):
            os.replace(begun, out)
    finally:
        shutil.rmtree(begun, ignore_errors=True) if begun.is_dir() else begun.unlink(missing_ok=True)
    return difference


@contextlib.contextmanager
def unwritable_said(out: Path) -> Iterator[None]:
    """Say in one sentence what the system refused, whichever library wrote; safetensors says it in a text."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        of_system = re.search(r"\(os error (\d+)\)", str(error))
        number = int(of_system[1]) if of_system else getattr(error, "errno", None)
        if number is None:
            raise
        raise unwritable(OSError(number, os.strerror(number)), out, "OUT") from error


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """max |found − expected| / max |expected|; infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    largest = expected.double().abs().max().item()
    return (found.double() - expected.double()).abs().max().item() / (largest or 1.0)
