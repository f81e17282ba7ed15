"""Collectives on Python objects; in a run of one process each returns at once."""

from torch import distributed


def world_size() -> int:
    """Number of processes of this run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_rank() -> int:
    """Rank of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that claims, logs and writes."""
    return process_rank() == 0


def broadcast(value: object) -> object:
    """Return rank 0's value on every rank (collective)."""
    values = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(value: object) -> list:
    """Return every rank's value, by rank (collective)."""
    values = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


def barrier() -> None:
    """Wait until every rank is here (collective)."""
    all_gather(None)
