"""Checks of seeds."""

LARGEST = 2**64 - 1  # the largest that torch.manual_seed takes


def check_seed(seed: object, name: str = "seed") -> None:
    """Check that a seed is a whole number in 0 … 2⁶⁴ − 1.

    Args:
        seed: the value to check.
        name: what the message calls it.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{name} must be a whole number, got {seed!r}.")
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"{name} must be 0 … 2**64 - 1, got {seed}.")
