"""What a model is shipped as: in 16 bits, in 4 bits, and as seed and adapters; the paper's Table 10."""

import argparse
import sys

from lottalora.cli.arguments import add_json
from lottalora.cli.arguments import add_overrides
from lottalora.cli.arguments import overrides_of
from lottalora.cli.arguments import print_json

HELP = "what a model is shipped as: in 16 bits, in 4 bits, and as seed and adapters"
COLUMNS = {"fp16": "fp16", "4-bit": "four_bit", "ours": "ours", "int8": "int8", "int4": "int4"}  # → key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_overrides(parser)
    add_json(parser)


def run(asked: argparse.Namespace) -> int:
    """Print one line per model; nothing is drawn or read."""
    found, dense = sizes(overrides_of(asked))
    if dense:
        print(f"{dense} without a scaffold left out: a dense model is shipped whole", file=sys.stderr)
    if asked.json:
        print_json({"sizes": found})
        return 0
    print("".join(f"{name:>10}" for name in COLUMNS) + "   MiB")
    for each in found:
        numbers = "".join(f"{each[key] / 2**20:>10,.1f}" for key in COLUMNS.values())
        print(f"{numbers}   {each['model']}")
    print("fp16, 4-bit: all weights; 4-bit with a 16-bit scale for every 32")
    print(
        "ours: the trained numbers in 16 bits; int8, int4: as save(..., precision=…) writes them, the trained"
    )
    print("matrices with a 16-bit scale for every 32 numbers, and biases, norms and β in 32 bits")
    return 0


def sizes(overrides: list[str]) -> tuple[list[dict], int]:
    """The bytes of every model on a scaffold that the overrides name, and the number of those without one.

    They are counted on the meta device.

    Raises:
        ValueError: a cell cannot be run, or none has a scaffold.
    """
    from lottalora.analysis.cost import compressed_bytes
    from lottalora.analysis.cost import dense_bytes
    from lottalora.analysis.cost import four_bit_bytes
    from lottalora.analysis.cost import shipped_bytes
    from lottalora.build import on_meta
    from lottalora.scaffold.artifact.precision import compressible
    from lottalora.sweeps.plan import sweep_of

    found, dense = [], 0
    with sweep_of(overrides) as (cells, composer, _):
        for cell in cells:
            if cell.problem:
                raise ValueError(cell.problem)
            cfg, _ = composer.config(cell.overrides)
            if not cfg.scaffold:
                dense += 1
                continue
            net, account = on_meta(cfg)
            trained = {id(p): p.numel() for p in compressible(net).values() if p.requires_grad}  # tied: once
            matrices, vectors = trained.values(), account.trainable - sum(trained.values())
            found.append(
                {
                    "model": " ".join(cell.overrides),
                    "full": account.full,
                    "trained": account.trainable,
                    "fp16": dense_bytes(account.full),
                    "four_bit": four_bit_bytes(account.full),
                    "ours": shipped_bytes(account.trainable),
                    "int8": compressed_bytes(matrices, vectors, "int8"),
                    "int4": compressed_bytes(matrices, vectors, "int4"),
                }
            )
    if not found:
        modes = ",".join(dict.fromkeys(cell.identity["mode"] for cell in cells))
        raise ValueError(f"A dense model is shipped whole. Leave out mode={modes}.")
    return found, dense
