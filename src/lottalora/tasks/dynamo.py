"""Import torch._dynamo, PyTorch's compiler, where something compiles and not at the start of every run.

Lightning imports it for one class, each optimizer for two functions that do nothing unless a compiler traces
them, and processes that join for a third: a third of the processor time of a run up to its first step.
"""

import functools
import importlib
import importlib.util
import sys
import threading
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import torch

NAME = "torch._dynamo"
REMOVAL = threading.Lock()


def postpone() -> None:
    """Let a stand-in be torch._dynamo until something needs more of it than an uncompiled run does."""
    if NAME not in sys.modules:
        sys.modules[NAME] = torch._dynamo = StandIn(NAME)
        sys.meta_path.insert(0, Finder)


def is_postponed() -> bool:
    """Whether the stand-in is still there: then nothing was compiled."""
    return isinstance(sys.modules.get(NAME), StandIn)


def real() -> types.ModuleType:
    """The real torch._dynamo, which is imported now if it was not before."""
    with REMOVAL:
        if is_postponed():
            sys.meta_path.remove(Finder)
            del sys.modules[NAME], torch._dynamo
    return importlib.import_module(NAME)


class StandIn(types.ModuleType):
    """What an uncompiled run asks of torch._dynamo; any other name is the real module's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = spec = importlib.util.find_spec(name)
        self.__file__, self.__loader__, self.__package__ = spec.origin, spec.loader, name
        self.__path__ = spec.submodule_search_locations  # so that Finder is asked for submodules
        self.OptimizedModule = OptimizedModule
        self.graph_break = graph_break
        self.trace_rules = TraceRules()
        self.disable = disable

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the module has
        if name.startswith("__") and name != "__all__":  # as inspect and pytest ask each module for
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(real(), name)


class TraceRules:
    """What processes that join ask torch._dynamo.trace_rules for; any other name is the real module's."""

    def clear_lru_cache(self) -> None:
        """Forget the rules that were looked up, if any were."""
        if not is_postponed():
            real().trace_rules.clear_lru_cache()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the module has
        return getattr(real().trace_rules, name)


class CompiledModules(type):
    """The class of a class whose instances are those of the real OptimizedModule."""

    def __instancecheck__(cls, module: object) -> bool:
        return not is_postponed() and isinstance(module, real().OptimizedModule)


class OptimizedModule(metaclass=CompiledModules):
    """What torch.compile makes of a module; while torch._dynamo is not imported, there is none."""


def graph_break(*arguments: Any, **options: Any) -> None:  # noqa: ANN401  as PyTorch's
    """Break the graph that is traced, if torch._dynamo is imported, and so may trace."""
    if not is_postponed():
        real().graph_break(*arguments, **options)


def disable(function: Callable | None = None, *arguments: Any, **options: Any) -> Callable:  # noqa: ANN401
    """The same function, which no compiler traces from when on there is one."""
    if function is None:
        return real().disable(function, *arguments, **options)
    disabled = functools.cache(lambda: real().disable(function, *arguments, **options))

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401
        return (function if is_postponed() else disabled())(*given, **named)

    return call


class Finder:
    """Finds submodules, such as torch._dynamo.config: each belongs to the real module, which imports most."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if not name.startswith(f"{NAME}."):
            return None
        real()
        if name not in sys.modules:
            return None  # the other finders go on
        return ModuleSpec(name, Imported(sys.modules[name]))


class Imported:
    """Gives the import system a module that was imported while it was looked for."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, _: ModuleSpec) -> types.ModuleType:
        return self.module

    def exec_module(self, _: types.ModuleType) -> None:
        self.module.__spec__ = self.spec
