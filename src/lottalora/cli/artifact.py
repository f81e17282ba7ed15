"""What an artifact is, whether it is what it says, and its model card."""

import argparse
from pathlib import Path

from lottalora.cli.arguments import add_json
from lottalora.cli.arguments import print_json
from lottalora.messages import printable

HELP_INSPECT = "what an artifact holds: architecture, scaffold, sizes, metrics"
HELP_VERIFY = "draw every matrix of an artifact again, compare, and replay its stored inputs"
HELP_CARD = "print an artifact's model card, in Hugging Face's form"


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `inspect`."""
    _add_path(parser)
    add_json(parser)


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    _add_path(parser)


def add_card(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `card`."""
    _add_path(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write it there, unless it exists")


def inspect(asked: argparse.Namespace) -> int:
    """Print what an artifact says, without building its model."""
    from lottalora.scaffold import read

    artifact = read(asked.path)
    found = summary(artifact)
    if asked.json:
        print_json(found | {"header": artifact.header.as_dict()})
        return 0
    for key, value in found.items():
        print(f"{key:14}{printable(value)}")
    for matrix in artifact.header.matrices:
        shape = " × ".join(str(n) for n in matrix.shape)
        stored = "stored" if matrix.stored else f"seed {matrix.seed}"
        drawn = f"{shape}, {matrix.place}, rank {matrix.rank}, {matrix.family}, {stored}"
        print(f"  {printable(matrix.name)}: {drawn}")
    for each in artifact.header.compressed:
        shape = " × ".join(str(n) for n in each.shape)
        errors = f"errors: largest {each.largest_error:.2e}, root mean square {each.rms_error:.2e}"
        print(f"  {printable(each.name)}: {shape}, {each.precision}, {errors}")
    return 0


def verify(asked: argparse.Namespace) -> int:
    """Rebuild the model, compare every fingerprint, and compare its output for the stored inputs."""
    from lottalora.artifacts.runs import register_models
    from lottalora.scaffold import deviation
    from lottalora.scaffold import load
    from lottalora.scaffold import read
    from lottalora.scaffold.artifact.loading import TOLERANCE

    register_models()
    artifact = read(asked.path)
    found = deviation(load(asked.path), artifact)
    print(f"seal: {artifact.sealed.seal}")
    print(f"W_seed: {len(artifact.header.matrices)} matrices, each with the fingerprint that was saved")
    if found is None:
        print("outputs: no inputs are stored")
        return 0
    if found > TOLERANCE:
        raise ValueError(f"The outputs differ by {found:.1e} of the largest; {TOLERANCE:g} is allowed.")
    print(f"outputs: differ by {found:.1e} of the largest" if found else "outputs: equal to the bit")
    return 0


def card(asked: argparse.Namespace) -> int:
    """Print or write the model card."""
    from lottalora.cli.model_card import card_of
    from lottalora.results.atomic_write import write_whole
    from lottalora.scaffold import read

    text = card_of(read(asked.path), asked.path.name)
    if asked.out is None:
        print(text)
        return 0
    if asked.out.exists():
        raise FileExistsError(f"{asked.out} exists. Name another file with --out.")
    write_whole(asked.out, text, setting="--out FILE")
    return 0


def summary(artifact) -> dict:  # noqa: ANN001  Artifact, whose import takes seconds
    """The artifact in a few lines."""
    header = artifact.header
    architecture = header.architecture or {"name": "none", "arguments": {}}
    arguments = ", ".join(f"{key}={value}" for key, value in sorted(architecture["arguments"].items()))
    drawn = sum(matrix.shape[0] * matrix.shape[1] for matrix in header.matrices if not matrix.stored)
    held = sum(tensor.numel() for tensor in artifact.state.values())
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in header.metrics.items())
    return {
        "architecture": f"{architecture['name']}({arguments})",
        "file": f"{artifact.sealed.size:,} bytes",
        "numbers": f"{held:,} in the file, {drawn:,} drawn from the seed",
        "precision": precision_of(artifact),
        "metrics": metrics or "none",
        "licence": header.licence or "none stated",
        "seal": artifact.sealed.seal,
    }


def precision_of(artifact) -> str:  # noqa: ANN001  as above
    """How the trained matrices are stored, and the largest error of any number."""
    compressed = artifact.header.compressed
    if not compressed:
        return "as trained"
    names = ", ".join(sorted({each.precision for each in compressed}))
    largest = max(each.largest_error for each in compressed)
    return f"{names} in {len(compressed)} matrices, largest error {largest:.2e}; the rest as trained"


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="MODEL.safetensors", help="from artifact=true or save")
