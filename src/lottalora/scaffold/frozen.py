"""The base of modules with a W_seed: it redraws a lost W_seed and records its scaffold in `state_dict()`.

A drawn W_seed carries a mark, see `marks`. Whatever replaces the tensor or its memory (a cast, `to_empty`, a
framework that rebuilds modules) loses the mark, and the module then draws W_seed again: at once if it is
notified, or else at the next forward pass. Values that are written into a drawn W_seed in place are kept,
since they are taken to be intended; `verify` reports them, and the state then has the fingerprint of these
values. PyTorch does not count writes through `W_seed.data`, so only `verify` and `save` find those. A record
that somebody overwrites in place is read and compared at the next forward pass.
"""

import warnings
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.draw import Source
from lottalora.scaffold.draw import draw
from lottalora.scaffold.identity import Fingerprint
from lottalora.scaffold.identity import Identity
from lottalora.scaffold.identity import agree
from lottalora.scaffold.identity import bits
from lottalora.scaffold.identity import fingerprint_of
from lottalora.scaffold.identity import refuse_another
from lottalora.scaffold.in_block import Block
from lottalora.scaffold.in_block import outside
from lottalora.scaffold.local_rows import clear_row
from lottalora.scaffold.local_rows import fill
from lottalora.scaffold.local_rows import is_shared_out
from lottalora.scaffold.local_rows import rows_of
from lottalora.scaffold.local_rows import to_local
from lottalora.scaffold.marks import Mark
from lottalora.scaffold.marks import address
from lottalora.scaffold.marks import is_untouched
from lottalora.scaffold.marks import mark
from lottalora.scaffold.marks import mark_of
from lottalora.scaffold.marks import writes
from lottalora.scaffold.reparametrization import WithoutWeight
from lottalora.scaffold.reparametrization import refuse_assignment
from lottalora.scaffold.reparametrization import refusing_text
from lottalora.scaffold.tracing import inside_export
from lottalora.scaffold.tracing import inside_functional_call
from lottalora.scaffold.tracing import refuse_script
from lottalora.scaffold.tracing import refuse_unusual
from lottalora.scaffold.tracing import untraced
from lottalora.scaffold.w_seed import holds
from lottalora.scaffold.w_seed import is_drawn
from lottalora.scaffold.w_seed import keeps_values
from lottalora.scaffold.w_seed import key_of_values
from lottalora.scaffold.w_seed import new_like
from lottalora.scaffold.w_seed import present_fingerprint
from lottalora.scaffold.w_seed import refuse_another_kind
from lottalora.scaffold.w_seed import refuse_no_matrix
from lottalora.scaffold.w_seed import target_of
from lottalora.scaffold.wrapping import Wrapping

HOLDS_FLOAT32 = (torch.float32, torch.float64)  # casting from these rounds the draw only once


class Frozen(nn.Module):
    """The base of every module that holds a W_seed.

    Frozen: W_seed, a buffer that `state_dict()` leaves out. It contains `identity` instead, a few hundred
    bytes that say which scaffold the module's state belongs to.

    Args:
        W_seed: the frozen weight, (out, in).
        source: the source that W_seed was drawn from; None for a W_seed that was given.
    """

    W_seed: Tensor
    identity: Tensor
    source: Source | None
    padding_idx: int | None = None  # the row of an embedding that stays 0
    wrapping: Wrapping | None = None  # how `wrap` was called; None for a layer that was built by hand
    blocks: tuple[Block, ...] = ()  # that it is in, the innermost last
    removed: bool = False  # whether `without_scaffold` has set W_seed to 0
    home: torch.device | None = None  # where W_seed is drawn, while `regenerated` has dropped it
    drawn_at_calls: bool = False  # whether `regenerated` or `scaffolds_per_row` draws it for each call
    __repr__ = refusing_text(nn.Module.__repr__)

    def __init__(self, W_seed: Tensor, source: Source | None) -> None:
        super().__init__()
        refuse_no_matrix(W_seed, source)
        self._parameters = WithoutWeight(self._parameters)
        self.source = source
        self._lost = False  # whether a given W_seed has lost its values
        self._expected: Identity | None = None  # the record of a state loaded on meta
        self._fingerprint: tuple[object, Fingerprint] | None = None
        self._written: tuple[object, str | None] | None = None  # see `_print_if_written`
        self.register_buffer("W_seed", W_seed, persistent=False)

    def record(self) -> Identity:
        """The record of this module's scaffold, without a fingerprint."""
        return Identity.of(self.source, tuple(self.W_seed.shape), None, [])

    @property
    def device_of_W_seed(self) -> torch.device:
        """The device on which W_seed is, or will be drawn."""
        return self.W_seed.device if self.home is None else self.home

    @torch.no_grad()
    def redraw(self, source: Source, drawn: Tensor | None = None) -> None:
        """Draw W_seed again, in place, from `source`.

        On the meta device only the record changes; `materialize` draws later.

        Args:
            source: the source to draw from.
            drawn: the rows that this process holds as they were drawn from `source` before, (local rows, in);
                None draws them.

        Raises:
            ValueError: a state that was loaded on the meta device belongs to another scaffold.
        """
        self.source = source
        W_seed = self.W_seed
        with untraced():
            if not W_seed.is_meta:
                self._fill(W_seed, source, drawn)
            self._write_record()
            self._settle()

    @torch.no_grad()
    def draw_anew(self, device: torch.device) -> None:
        """Draw W_seed into new memory on a device.

        The module gets it when it is full, since a call in another thread may read it.

        Raises:
            ValueError: a state that was loaded on the meta device belongs to another scaffold.
        """
        assert self.source is not None, "a given W_seed cannot be drawn"
        W_seed = new_like(self.W_seed, device)
        with untraced():
            self._fill(W_seed, self.source)
            self._buffers["W_seed"] = W_seed
            self._write_record()
            self._settle()

    def _fill(self, W_seed: Tensor, source: Source, drawn: Tensor | None = None) -> None:
        """Write into W_seed what this module has of the source, and mark it; `redraw` has the arguments."""
        if self.removed:
            to_local(W_seed).zero_()
        elif drawn is None:
            fill(W_seed, source)
        else:
            to_local(W_seed).copy_(drawn)
        if self.padding_idx is not None:
            clear_row(W_seed, self.padding_idx)
        if not is_shared_out(W_seed):
            mark(W_seed, source, untouched=not self.removed)

    def check(self, x: Tensor) -> None:
        """Draw W_seed again if it may have lost its values; every forward pass starts with this.

        It reads nothing from the device. A W_seed that `torch.func.functional_call` or `vmap` passes in is
        used as it is.

        Args:
            x: the input, of any shape; only its device counts.

        Raises:
            ValueError: the layer is on the meta device and x is not, or a W_seed that was given has lost its
                values.
        """
        if torch.compiler.is_compiling():
            self._check_while_compiling()
            return
        self._check_record()
        if type(x) is not Tensor or x.is_quantized or x.is_nested:
            refuse_unusual(x)
        W_seed = self.W_seed
        absent = W_seed.is_meta and not x.is_meta
        if self.source is None and not self._lost and not absent:
            return
        if is_drawn(W_seed, self.source) and not absent:
            return
        if type(W_seed) is nn.Parameter:  # FSDP's, see `shards`
            return
        if self.source is None:
            raise ValueError(
                "W_seed of this layer was given, not drawn, and has lost its values on the meta device: "
                "build the model with its weights, or assign layer.W_seed."
            )
        if absent and any(parameter.is_meta for parameter in self.parameters(recurse=False)):
            raise ValueError(
                "This layer is on the meta device: call materialize(model), or model.to_empty(device=…)."
            )
        if absent:  # dropped by `regenerated`, or a state was assigned to a model on the meta device
            self.draw_anew(x.device)
        self._restore()

    def _check_while_compiling(self) -> None:
        """Draw a lost W_seed while dynamo makes the graph; drawing is no part of the graph.

        `torch.export` without dynamo hides the tensors of the module, so nothing can be done there.
        """
        self._refuse_to_compile()
        if self.source is not None and torch.compiler.is_dynamo_compiling():
            self._restore()
            _ = hasattr(self.W_seed, "drawn")  # dynamo guards it: without the mark, the graph is made again

    def _refuse_to_compile(self) -> bool:
        """Refuse a layer inside `regenerated`; dynamo calls it as it calls `_restore`.

        Raises:
            ValueError: it is such a layer; dynamo raises its own error with this message.
        """
        if self.drawn_at_calls:
            raise ValueError(
                "Inside regenerated each call draws its W_seed, which is no part of a compiled or exported "
                "graph: call the model without torch.compile, or leave that block first."
            )
        return True

    def _restore(self) -> bool:
        """Draw W_seed again if it has lost its mark. It returns True, since dynamo wants a constant."""
        self._check_record()
        source, W_seed = self.source, self.W_seed
        if source is None or is_drawn(W_seed, self.source) or not self._may_draw(W_seed):
            return True
        if not inside_functional_call():
            others = getattr(W_seed, "drawn", None)
            if others is not None and others.source != source:  # it is the W_seed of another layer
                self._buffers["W_seed"] = new_like(W_seed, W_seed.device)
            self.redraw(source)
        return True

    # Dynamo calls it instead of tracing it. torch.compiler.assume_constant_result does the same, and imports
    # dynamo, which takes seconds.
    _restore._dynamo_marked_constant = True  # type: ignore[attr-defined]  # see above
    _refuse_to_compile._dynamo_marked_constant = True  # type: ignore[attr-defined]  # see above

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """This module and those within; `torch.export` asks for them before it hides their tensors."""
        if inside_export():
            self._restore()
        yield from super().named_modules(memo, prefix, remove_duplicate)

    def __prepare_scriptable__(self) -> None:
        refuse_script()

    def _check_record(self) -> None:
        """Compare a record that was overwritten, as a loop of `copy_` over a state does, with this scaffold.

        It reads the record only if it was replaced or written to since it was last read.

        Raises:
            ValueError: the record belongs to another scaffold. One that says nothing is written again.
        """
        record = self._buffers.get("identity")
        if record is None or getattr(record, "read", None) == writes(record):
            return
        if record.is_meta or not self._may_read(record) or inside_functional_call():
            return
        layer = self.source.name if self.source else type(self).__name__
        with untraced():
            try:
                found = Identity.from_tensor(record, layer)
            except ValueError:  # such as a moving average over all buffers leaves
                self._write_record()
                return
            self._follow(found, layer)
        self.identity.read = writes(self.identity)  # type: ignore[attr-defined]  # an attribute of the tensor

    def _follow(self, state: Identity, layer: str) -> None:
        """Compare the record of a state, and draw the scaffold of the number that it names.

        Args:
            state: the record.
            layer: this layer's name, for the message.

        Raises:
            ValueError: the state belongs to another scaffold.
        """
        self.compare(state, layer)
        if self.source is not None and state.redraw is not None and state.redraw != self.source.redraw:
            self.redraw(replace(self.source, redraw=state.redraw))

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the float32 draw; of the present bits if W_seed was given or written to."""
        edited = self._print_if_written()
        if edited is not None:
            return edited
        W_seed, source = self.W_seed, self.source
        key = key_of_values(W_seed) if source is None else source
        if self._fingerprint is None or self._fingerprint[0] != key:
            self._fingerprint = key, present_fingerprint(W_seed, source, self.padding_idx)
        return self._fingerprint[1]

    def differs(self) -> bool:
        """Whether W_seed or its stored fingerprint differs from a new draw.

        A W_seed that was given is compared with its stored fingerprint.
        """
        try:
            self._check_record()
        except ValueError:
            return True
        known = self._fingerprint[1] if self._fingerprint else None
        if self.source is None:
            return not agree(known, present_fingerprint(self.W_seed, None, None))
        W = draw(self.source, rows_of(self.W_seed))
        held = to_local(self.W_seed)
        if held.is_meta:
            return True
        whole = len(W) == len(self.W_seed)
        if known is not None and whole and not agree(known, fingerprint_of(W, exact=self.source.exact)):
            return True
        return not holds(self.W_seed, W, self.source, self.padding_idx)

    def _print_if_written(self) -> str | None:
        """The SHA-256 of a drawn W_seed, as float32, into which other values were written since; else None.

        Nothing is compared unless something was written, and then once.
        """
        W, source = self.W_seed, self.source
        drawn = mark_of(W)
        if source is None or drawn is None or is_untouched(W) or self.removed or is_shared_out(W):
            return None
        now = source, address(W), writes(W)
        if self._written is None or self._written[0] != now or W.is_inference():
            is_draw = holds(W, draw(source), source, self.padding_idx)
            found = None if is_draw else bits(W.float())
            self._written = now, found
            if found is None and not W.is_inference():
                mark(W, source)
        return self._written[1]

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

    def compare(self, state: Identity, layer: str) -> None:
        """Refuse a state that belongs to another scaffold.

        If other processes hold some of the rows, only the sources are compared. If W_seed has no values yet,
        the fingerprints are compared when it is drawn.

        Args:
            state: the record in the state.
            layer: this layer's name, for the message.

        Raises:
            ValueError: the state belongs to another scaffold.
        """
        ours = self.record()
        refuse_another(state, ours, layer)
        if state.fingerprint is None or is_shared_out(self.W_seed):
            return
        if self.W_seed.is_meta or state.redraw != ours.redraw:
            self._expected = state
            return
        refuse_another(state, replace(ours, fingerprint=self.fingerprint()), layer)

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
        return {**vars(left), "_untouched": is_untouched(left.W_seed)}  # a copy has other memory

    def __setstate__(self, state: dict[str, Any]) -> None:
        untouched = state.pop("_untouched", False)
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's
        drawn: Mark | None = getattr(self.W_seed, "drawn", None)
        if drawn is not None and drawn.dtype is self.W_seed.dtype and self._may_draw(self.W_seed):
            mark(self.W_seed, drawn.source, untouched=untouched)

    @torch.no_grad()
    def _clear_padding(self) -> None:
        """Set the padding row of a drawn W_seed to 0; one that was given keeps its row."""
        if self.padding_idx is not None and self.source is not None and not self.W_seed.is_meta:
            untouched = is_untouched(self.W_seed)
            clear_row(self.W_seed, self.padding_idx)
            if untouched:
                mark(self.W_seed, self.source)

    def _may_draw(self, W_seed: Tensor) -> bool:
        """Whether the tensor has its own memory: it belongs to no tracer, functorch transform or replica."""
        return not W_seed.is_meta and self._may_read(W_seed)

    def _may_read(self, tensor: Tensor) -> bool:
        """The same of any tensor of this module."""
        return (
            type(tensor) is Tensor
            and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
            and not getattr(self, "_is_replica", False)
        )

    def _write_record(self, fingerprint: Fingerprint | None = None) -> None:
        record = replace(self.record(), fingerprint=fingerprint).to_tensor()
        device = self.W_seed.device
        record = torch.empty_like(record, device=device) if device.type == "meta" else record.to(device)
        record.read = writes(record)  # type: ignore[attr-defined]  # see `_check_record`
        if "identity" in self._buffers:
            self._buffers["identity"] = record
        else:
            self.register_buffer("identity", record)

    def _settle(self) -> None:
        """Compare the fingerprint with that of a state loaded while W_seed was on the meta device."""
        if self._expected is None or self.W_seed.is_meta:
            return
        expected, self._expected = self._expected, None
        self.compare(expected, expected.name or type(self).__name__)

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
