"""Each test begins without the graphs that earlier ones have compiled."""

import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests() -> Iterator[None]:
    """Dynamo counts the graphs of a function over the whole process, and makes no more than eight."""
    yield
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
