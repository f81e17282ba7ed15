"""What a step and a model cost by count alone: the paper's Tables 9 and 10.

Letters: M examples (or tokens), N weights, N_tr trained ones.
"""

from collections.abc import Iterable

from lottalora.scaffold.artifact.precision import bytes_in

MIXED = 16  # bytes a trained weight: bf16 weight and gradient, float32 copy and two moments of Adam
FROZEN = 2  # bytes of a frozen weight in bf16
GPT = {  # size → weights, and trained ones at rank 8; `lottalora size` counts them
    "3M": (2_368_320, 2_072_600),
    "30M": (29_990_784, 12_533_800),
    "300M": (315_405_312, 34_209_880),
    "600M": (693_370_944, 45_588_600),
    "900M": (1_212_039_296, 56_869_000),
}


def flops_ratio(full: int, trained: int) -> float:
    r"""A step on a scaffold over one of full training: a frozen weight has no gradient of its own.

    .. math:: \frac{M (4 N + 2 N_{tr})}{6 M N}
    """
    return (4 * full + 2 * trained) / (6 * full)


def memory_ratio(full: int, trained: int) -> float:
    r"""Bytes of weights, gradients and Adam's state, without activations.

    .. math:: \frac{2 N + 14 N_{tr}}{16 N}
    """
    return (FROZEN * full + (MIXED - FROZEN) * trained) / (MIXED * full)


def shipped_bytes(trained: int) -> int:
    """What a finished model is sent as, in 16 bits: the trained numbers; the scaffold is a seed."""
    return 2 * trained


def compressed_bytes(matrices: Iterable[int], vectors: int, precision: str) -> int:
    """What `save(..., precision=…)` writes of the trained numbers, without the header.

    Args:
        matrices: the count of numbers of each trained matrix; they are compressed.
        vectors: the count of all other trained numbers; they stay in float32.
        precision: of the matrices.
    """
    return sum(bytes_in(numbers, precision) for numbers in matrices) + 4 * vectors


def dense_bytes(full: int) -> int:
    """What a dense model is sent as in 16 bits."""
    return 2 * full


def four_bit_bytes(full: int) -> int:
    """What a dense model is sent as in 4 bits, with a scale of 16 bits for every 32 weights."""
    return full * (4 * 32 + 16) // (8 * 32)


def shipped_mib(metric: str, size: str) -> float:
    """Our number for one of Table 10, by the paper's name of it, for a GPT of that size at rank 8."""
    full, trained = GPT[size]
    found = {
        "shipped_fp16_mib": dense_bytes(full),
        "shipped_4bit_mib": four_bit_bytes(full),
        "shipped_mib": shipped_bytes(trained),
    }
    return found[metric] / 2**20
