"""Layers that a foreign module calls one after another with the same x are computed together.

The forward pass of an attention calls q, k and v in turn and is not ours to change. So `wrap` registers two
hooks on such a module: one opens a `Scope` before its forward pass, the other closes it. Within, the first of
the layers that is called with an x computes the outputs of all (`layers.stack`), and the others take theirs.

That is safe for these reasons:

- A layer takes an output only for the very tensor that it was computed from, with no write to it since, and
  only with the same weights and in the same mode (gradients, autocast, training). Else it computes its own,
  so what it returns is right whatever the module does.
- An output that is not asked for gets no gradient, and is dropped when the module's forward pass ends or
  fails.
- A module holds nothing but its hooks, which are two functions of this file: it can be copied, pickled and
  run by several threads, each of which has a scope of its own.
- Which layers are stacked depends on shapes, options and the mode, not on earlier passes. So a pass that is
  run again, as by activation checkpointing, computes and saves the same, and has the same masks if it ran
  without gradients first.

Under a compiler, autocast or a transform of PyTorch's each layer computes its own output. So it does if it
has hooks, or if somebody has replaced it.
"""

from collections.abc import Iterator
from typing import TypeGuard

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.layers.scope import Scope
from lottalora.scaffold.layers.scope import scope
from lottalora.scaffold.layers.stack import stacked

Names = tuple[str, ...]
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")
DECLARED = "share_input"  # the attribute of a class that names such layers, a tuple of `Names`
KNOWN: dict[str, tuple[Names, ...]] = {  # by qualified name, so that no package has to be imported
    "transformers.models.distilbert.modeling_distilbert.DistilBertSelfAttention": (
        ("q_lin", "k_lin", "v_lin"),
    ),
    "transformers.models.llama.modeling_llama.LlamaAttention": (QKV,),
    "transformers.models.llama.modeling_llama.LlamaMLP": (GATE_UP,),
    "transformers.models.vit.modeling_vit.ViTAttention": (QKV,),
}


def share_inputs(model: nn.Module) -> None:
    """Let the layers of each module that is known to call them with one x be computed together."""
    for module in model.modules():
        if _groups(module) and open_scope not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(open_scope, with_kwargs=True)
            module.register_forward_hook(close_scope, always_call=True)


def unshare_inputs(model: nn.Module) -> None:
    """Remove the hooks of `share_inputs`."""
    for module in model.modules():
        hooks = (module._forward_pre_hooks, module._forward_hooks)
        for kind in hooks:
            for key in [key for key, hook in kind.items() if hook in (open_scope, close_scope)]:
                del kind[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)


def open_scope(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Open the scope of a module; its layers share an x that has the shape of its first tensor."""
    if torch.compiler.is_compiling():
        return
    x = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
    groups = _groups(module)
    scope.set(None if x is None or not groups else Scope(groups, x.shape, stacked))


def close_scope(module: nn.Module, args: tuple[object, ...], output: object) -> None:
    """Close it."""
    if not torch.compiler.is_compiling():
        scope.set(None)


def _groups(module: nn.Module) -> list[tuple[nn.Module, ...]]:
    """The layers of ours in a module that read one x."""
    found = [[module._modules.get(name) for name in names] for names in _names(type(module))]
    ours = [tuple(layer for layer in group if isinstance(layer, LottaLinear)) for group in found]
    return [group for group in ours if len(group) > 1]


def _names(cls: type[nn.Module]) -> Iterator[Names]:
    """The names of such layers in a class; a class that overrides `forward`, or is scripted, has none."""
    if issubclass(cls, torch.jit.ScriptModule):
        return
    for base in cls.__mro__:
        if getattr(base, "forward", None) is cls.forward:
            declared = vars(base).get(DECLARED)
            known = KNOWN.get(f"{base.__module__}.{base.__qualname__}", ())
            yield from declared if _are_names(declared) else known


def _are_names(declared: object) -> TypeGuard[tuple[Names, ...]]:
    """Whether an attribute is meant for us; a class of others may have one of that name."""
    groups = declared if isinstance(declared, tuple) else ()
    names = [name for group in groups if isinstance(group, tuple) for name in group]
    return (
        bool(names)
        and all(isinstance(each, tuple) for each in groups)
        and all(isinstance(n, str) for n in names)
    )
