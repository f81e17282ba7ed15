"""Configs as the command line composes them."""

from tests.suite.conftest import typed as typed
