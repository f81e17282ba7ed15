"""The range of seeds."""

LARGEST = 2**64 - 1  # as torch.manual_seed takes it


def check_seed(seed: object, name: str = "seed") -> None:
    """A ValueError for what is no seed."""
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"{name} must be a whole number, got {seed!r}.")
    if not 0 <= seed <= LARGEST:
        raise ValueError(f"{name} must be 0 … 2**64 - 1, got {seed}.")
