"""Which function fills which marker."""

from collections.abc import Callable

MakeBlock = Callable[..., str]
MAKERS: dict[str, MakeBlock] = {}


def fills(make: MakeBlock) -> MakeBlock:
    """Register a block under the name of its function: (blocks, *words of the marker) → Markdown."""
    MAKERS[make.__name__] = make
    return make
