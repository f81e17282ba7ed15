"""The name under which a layer's W_seed is drawn: its dotted name without PyTorch's wrappers."""

from torch import nn

ALWAYS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # only PyTorch uses these names
IN_NO_STATE = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # `state_dict()` leaves these out
HOLD_MODULE = ("DataParallel", "DistributedDataParallel", "AveragedModel")  # hold the model as `module`


def stream_names(model: nn.Module) -> dict[str, str]:
    """The name of every module's random stream, by the module's dotted name.

    A part called `module` is left out only where a wrapper of PyTorch added it, since a model may have a
    submodule of that name.
    """
    names: dict[str, str] = {"": ""}
    for name, _ in model.named_modules(remove_duplicate=False):
        if not name:
            continue
        parent, _, own = name.rpartition(".")
        added = own in ALWAYS or (own == "module" and _is_wrapper(model.get_submodule(parent)))
        names[name] = names[parent] if added else f"{names[parent]}.{own}".removeprefix(".")
    return names


def name_in_state(name: str) -> str:
    """A dotted name as `state_dict()` has it: without the wrappers that hide themselves there."""
    return ".".join(part for part in name.split(".") if part not in IN_NO_STATE)


def without_wrappers(name: str, streams: dict[str, str]) -> str:
    """The dotted name of a weight without PyTorch's wrappers.

    Args:
        name: the name with them; its last parts need not be modules.
        streams: what `stream_names` returns.
    """
    parts = name.split(".")
    known = next(i for i in range(len(parts), -1, -1) if ".".join(parts[:i]) in streams)
    return ".".join(part for part in (streams[".".join(parts[:known])], *parts[known:]) if part)


def _is_wrapper(module: nn.Module) -> bool:
    return any(
        cls.__name__ in HOLD_MODULE and cls.__module__.partition(".")[0] == "torch"
        for cls in type(module).__mro__
    )
