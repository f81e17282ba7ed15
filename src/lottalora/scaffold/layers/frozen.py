"""The base of every layer with a W_seed: what PyTorch asks of a module, answered for one that has it."""

import warnings
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.drawing.marks import Mark
from lottalora.scaffold.drawing.marks import address
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.drawing.marks import mark_of
from lottalora.scaffold.layers.drawn import Drawn
from lottalora.scaffold.layers.how_wrapped import Wrapping
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.layers.in_block import Block
from lottalora.scaffold.layers.in_block import outside
from lottalora.scaffold.layers.reparametrization import refuse_assignment
from lottalora.scaffold.layers.reparametrization import refusing_text
from lottalora.scaffold.layers.tracing import inside_export
from lottalora.scaffold.layers.tracing import refuse_script
from lottalora.scaffold.layers.w_seed import keeps_values
from lottalora.scaffold.layers.w_seed import new_like
from lottalora.scaffold.layers.w_seed import refuse_another_kind
from lottalora.scaffold.layers.w_seed import target_of

HOLDS_FLOAT32 = (torch.float32, torch.float64)  # casting from these rounds the draw only once


class Frozen(Drawn):
    """The base of every module that holds a W_seed.

    Frozen: W_seed, a buffer that `state_dict()` leaves out. It contains `identity` instead, a few hundred
    bytes that say which scaffold the module's state belongs to.

    Args:
        W_seed: the frozen weight, (out, in).
        source: the source that W_seed was drawn from; None for a W_seed that was given.
    """

    wrapping: Wrapping | None = None  # how `wrap` was called; None for a layer that was built by hand
    blocks: tuple[Block, ...] = ()  # that it is in, the innermost last
    __repr__ = refusing_text(nn.Module.__repr__)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """This module and those within; `torch.export` asks for them before it hides their tensors."""
        if inside_export():
            self._restore()
        yield from super().named_modules(memo, prefix, remove_duplicate)

    def __prepare_scriptable__(self) -> None:
        refuse_script()

    def place(self, device: torch.device | str, *, drawn: bool = True) -> None:
        """Allocate the tensors of this module on a device.

        Args:
            device: the device.
            drawn: whether to draw W_seed; it needs a source then.
        """
        nn.Module._apply(self, lambda tensor: torch.empty_like(tensor, device=device), recurse=False)
        if drawn:
            assert self.source is not None, "materialize refuses a W_seed without a source"
            self.redraw(self.source)
        self._write_record()

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:  # any object; typed as nn.Module's
        if name == "weight":
            refuse_assignment(name)
        if name == "W_seed" and isinstance(value, Tensor) and "W_seed" in self._buffers:
            refuse_another_kind(value, self.W_seed)
        super().__setattr__(name, value)
        if name == "W_seed" and type(value) is Tensor:
            self._lost = False
            self._restore()
        elif name == "identity" and isinstance(value, Tensor) and not value.is_meta:
            layer = self.source.name if self.source else type(self).__name__
            self.compare(Identity.from_tensor(value, layer), layer)

    def __getstate__(self) -> dict[str, object]:
        """What a copy gets: this module as it is outside of all blocks."""
        left = outside(self)
        state: dict[str, object] = nn.Module.__getstate__(left)  # without what `compile` made for this one
        return {**state, "_untouched": is_untouched(left.W_seed)}  # a copy has other memory

    def __setstate__(self, state: dict[str, Any]) -> None:
        untouched = state.pop("_untouched", False)
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        drawn: Mark | None = getattr(self.W_seed, "drawn", None)
        if drawn is not None and drawn.dtype is self.W_seed.dtype and self._may_draw(self.W_seed):
            mark(self.W_seed, drawn.source, untouched=untouched)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        if self.W_seed.is_meta and not any(p.is_meta for p in self.parameters(recurse=False)):
            self._leave_meta(target_of(fn))  # a state was assigned to the module while it was on meta
        before = self.W_seed
        like = torch.empty(0, dtype=before.dtype, device=before.device)
        drawn, untouched = mark_of(before), is_untouched(before)
        if recurse:
            for child in self.children():
                child._apply(fn)
        super()._apply(self._own_fn(fn), recurse=False)  # type: ignore[no-untyped-call]  # torch's
        if self.W_seed is not before or is_shared_out(before):
            self._arrived(like, drawn, untouched, fn)
            self._write_record()
        elif drawn is not None:  # `share_memory` gives the same tensor other memory
            before.drawn = drawn._replace(address=address(before))  # type: ignore[attr-defined]  # a mark
        return self

    def _own_fn(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The function to apply to this module's own tensors instead of `fn`; subclasses change it."""
        return fn

    def _arrived(
        self, like: Tensor, drawn: Mark | None, untouched: bool, fn: Callable[[Tensor], Tensor]
    ) -> None:
        """After `fn` has replaced W_seed, mark the new tensor if it holds the draw, or draw it again.

        Args:
            like: an empty tensor of the dtype and device that W_seed had.
            drawn: the mark that W_seed had.
            untouched: whether nothing had been written to W_seed.
            fn: the function that was applied.
        """
        after = self.W_seed
        if after.is_meta:
            return
        kept = not like.is_meta and keeps_values(fn, like)
        if self.source is None:
            self._lost = self._lost or not kept
            return
        faithful = kept and (like.dtype == after.dtype or like.dtype in HOLDS_FLOAT32)
        if is_shared_out(after):
            if not faithful:
                self.redraw(self.source)
        elif faithful and drawn is not None and drawn.source == self.source:
            mark(after, self.source, untouched=untouched)
        elif self._may_draw(after):
            self.redraw(self.source)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        if not self.W_seed.is_meta:
            self._restore()
            self._write_record(self.fingerprint())
            self._warn_of_edits(prefix.removesuffix("."))
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _warn_of_edits(self, layer: str) -> None:
        if self._print_if_written() is not None:
            warnings.warn(
                f"Somebody wrote into W_seed of layer {layer!r}, so its seed does not give it back: this "
                "state can be loaded only where the same was written. set_backbone_seed draws it again.",
                stacklevel=4,
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: object
    ) -> None:
        given = state_dict.get(f"{prefix}identity")
        if isinstance(given, Tensor) and not given.is_meta:
            layer = prefix.removesuffix(".")
            self._follow(Identity.from_tensor(given, layer), layer)
        if any(key.startswith(prefix) for key in state_dict):
            state_dict[f"{prefix}identity"] = self._buffers["identity"]  # states of before format 1 have none
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)
        if local_metadata.get("assign_to_params_buffers") and isinstance(given, Tensor):
            self._leave_meta(given.device)

    def _leave_meta(self, device: torch.device) -> None:
        """Draw a W_seed that is on the meta device, after a state was assigned to this module."""
        absent = type(self.W_seed) is Tensor and self.W_seed.is_meta
        if self.source is not None and absent and device.type != "meta":
            self.W_seed = new_like(self.W_seed, device)
