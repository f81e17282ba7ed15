"""Hydra as it is without our memory of config files."""

import contextlib
from collections.abc import Iterator
from unittest import mock

from hydra._internal import defaults_list
from hydra._internal import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from lottalora.config import loader


@contextlib.contextmanager
def hydras_own_loader() -> Iterator[None]:
    """A context manager in which Hydra, once initialised, composes without the memory."""
    with (
        mock.patch.object(hydra, "ConfigLoaderImpl", ConfigLoaderImpl),
        mock.patch.object(defaults_list, "_create_interpolation_map", loader.hydras_interpolation_map),
    ):
        yield
