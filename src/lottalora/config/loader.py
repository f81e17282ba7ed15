"""Hydra's config loader with a memory: a process reads each file once, and merges the same files once.

A run is composed twice, once more from its identity alone, and a sweep for each choice of groups; reading and
merging some twenty files took a fifth of a second each time. All uses of Hydra's and OmegaConf's private
interfaces that make composing faster are here; tests/suite/test_loader.py compares the configs with Hydra's.
"""

import contextlib
import copy
import functools
import os
import pickle
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Sequence

from hydra._internal import defaults_list
from hydra._internal import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.config_repository import IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig
from omegaconf import base

MOST = 64  # merged configs that are kept, pickled: 12 kB each, read in a fifth of a deep copy's time
hydras_interpolation_map = defaults_list._create_interpolation_map
parse_once = functools.lru_cache(maxsize=None)(base.parse)


def install() -> None:
    """Let Hydra compose with the memory from now on in this process."""
    hydra.ConfigLoaderImpl = Loader
    defaults_list._create_interpolation_map = interpolation_map


class Repository(ConfigRepository):
    """Config files, each read once while it stays as it is. No one may change what `load_config` returns."""

    read: dict[Hashable, tuple[Hashable, ConfigResult]] = {}  # place → state of the file, what it holds

    def load_config(self, config_path: str) -> ConfigResult | None:
        """What a file holds: the same object as before where the file has not changed."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            return None
        place, state = (
            (source.provider, source.scheme(), source.path, config_path),
            state_of(source, config_path),
        )
        if self.read.get(place, (None, None))[0] != state:
            self.read[place] = (state, super().load_config(config_path))
        return self.read[place][1]


def state_of(source: ConfigSource, config_path: str) -> Hashable:
    """What changes with a file; what Python packages hold, such as Hydra's own configs, does not change."""
    if source.scheme() != "file":
        return True
    found = os.stat(os.path.join(source.path, source._normalize_file_name(config_path)))
    return found.st_ino, found.st_mtime_ns, found.st_size


class Loader(ConfigLoaderImpl):
    """Hydra's loader, that merges the same files once."""

    merged: dict[Hashable, tuple[list[ConfigResult], Callable[[], DictConfig]]] = {}

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        parts = [repo.load_config(default.config_path) for default in defaults]
        key = tuple(
            (id(part), default.config_path, default.package, default.primary)
            for part, default in zip(parts, defaults, strict=True)
        )
        if key not in self.merged:
            config = super()._compose_config_from_defaults_list(defaults, repo)
            if len(self.merged) == MOST:
                del self.merged[next(iter(self.merged))]
            self.merged[key] = (parts, copier(config))  # the parts too, so that no other gets their ids
        return self.merged[key][1]()

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = copy.copy(super()._load_single_config(default, repo))
        loaded.config = copy.deepcopy(loaded.config)  # merging takes over parts of it
        return loaded


def copier(config: DictConfig) -> Callable[[], DictConfig]:
    """Makes copies of a config: from a pickle, which is the quickest way where its classes allow it."""
    try:
        pickled = pickle.dumps(config)
    except pickle.PicklingError:  # a class of a plugin that Hydra has imported twice, such as submitit's
        return functools.partial(copy.deepcopy, config)
    return functools.partial(pickle.loads, pickled)


def interpolation_map(
    overrides: object, defaults: Sequence[InputDefault], self_added: bool
) -> DictConfig | None:
    """What a default such as `recipe: ${model}_${data}` is resolved by, where there is such a one."""
    if any(default.is_interpolation() for default in defaults):
        return hydras_interpolation_map(overrides, defaults, self_added)
    return None


@contextlib.contextmanager
def interpolations_parsed_once() -> Iterator[None]:
    """A context manager under which OmegaConf parses each `${…}` once, and not whenever it reads one."""
    before = base.parse
    base.parse = parse_once
    try:
        yield
    finally:
        base.parse = before
