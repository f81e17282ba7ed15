"""The base of modules with a W_seed: the record of the scaffold that it belongs to.

A record says from which source W_seed was drawn, and has the fingerprint of its bits where they are known. It
goes into `state_dict()` as the buffer `identity`, and a state of another scaffold is refused.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.drawing.marks import address
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.drawing.marks import mark_of
from lottalora.scaffold.drawing.marks import writes
from lottalora.scaffold.layers.identity import Fingerprint
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.layers.identity import bits
from lottalora.scaffold.layers.identity import refuse_another
from lottalora.scaffold.layers.reparametrization import WithoutWeight
from lottalora.scaffold.layers.w_seed import holds
from lottalora.scaffold.layers.w_seed import key_of_values
from lottalora.scaffold.layers.w_seed import present_fingerprint
from lottalora.scaffold.layers.w_seed import refuse_no_matrix


class Recorded(nn.Module):
    """A module with a W_seed, and the record of it.

    Args:
        W_seed: the frozen weight, (out, in).
        source: the source that W_seed was drawn from; None for a W_seed that was given.
    """

    W_seed: Tensor
    identity: Tensor
    source: Source | None
    padding_idx: int | None = None  # the row of an embedding that stays 0
    removed: bool = False  # whether `without_scaffold` has set W_seed to 0
    home: torch.device | None = None  # where W_seed is drawn, while `regenerated` has dropped it

    def __init__(self, W_seed: Tensor, source: Source | None) -> None:
        super().__init__()
        refuse_no_matrix(W_seed, source)
        self._parameters = WithoutWeight(self._parameters)
        self.source = source
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

    def _settle(self) -> None:
        """Compare the fingerprint with that of a state loaded while W_seed was on the meta device."""
        if self._expected is None or self.W_seed.is_meta:
            return
        expected, self._expected = self._expected, None
        self.compare(expected, expected.name or type(self).__name__)

    def _write_record(self, fingerprint: Fingerprint | None = None) -> None:
        record = replace(self.record(), fingerprint=fingerprint).to_tensor()
        device = self.W_seed.device
        record = torch.empty_like(record, device=device) if device.type == "meta" else record.to(device)
        record.read = writes(record)  # type: ignore[attr-defined]  # see `_check_record`
        if "identity" in self._buffers:
            self._buffers["identity"] = record
        else:
            self.register_buffer("identity", record)

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
