"""What a step and a model cost by count alone: the paper's Tables 9 and 10.

Letters: M examples (or tokens), N weights, N_tr trained ones.
"""

MIXED = 16  # bytes a trained weight: bf16 weight and gradient, float32 copy and two moments of Adam
FROZEN = 2  # bytes of a frozen weight in bf16


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
