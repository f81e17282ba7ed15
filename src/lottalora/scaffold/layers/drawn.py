"""W_seed of a module, drawn and drawn again.

A drawn W_seed carries a mark, see `drawing.marks`. Whatever replaces the tensor or its memory (a cast,
`to_empty`, a framework that rebuilds modules) loses the mark, and the module then draws W_seed again: at once
if it is notified, or else at the next forward pass. Values that are written into a drawn W_seed in place are
kept, since they are taken to be intended; `verify` reports them, and the state then has the fingerprint of
these values. PyTorch does not count writes through `W_seed.data`, so only `verify` and `save` find those. A
record that somebody overwrites in place is read and compared at the next forward pass.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.drawing.local_rows import clear_row
from lottalora.scaffold.drawing.local_rows import fill
from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.drawing.local_rows import rows_of
from lottalora.scaffold.drawing.local_rows import to_local
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.drawing.marks import writes
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.layers.identity import agree
from lottalora.scaffold.layers.identity import fingerprint_of
from lottalora.scaffold.layers.recorded import Recorded
from lottalora.scaffold.layers.tracing import inside_functional_call
from lottalora.scaffold.layers.tracing import refuse_unusual
from lottalora.scaffold.layers.tracing import untraced
from lottalora.scaffold.layers.w_seed import holds
from lottalora.scaffold.layers.w_seed import is_drawn
from lottalora.scaffold.layers.w_seed import new_like
from lottalora.scaffold.layers.w_seed import present_fingerprint


class Drawn(Recorded):
    """A module that draws a lost W_seed again."""

    drawn_at_calls: bool = False  # whether `regenerated` or `scaffolds_per_row` draws it for each call

    def __init__(self, W_seed: Tensor, source: Source | None) -> None:
        super().__init__(W_seed, source)
        self._lost = False  # whether a given W_seed has lost its values

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
        if type(W_seed) is nn.Parameter:  # FSDP's, see `whole_model.shards`
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

    @torch.no_grad()
    def _clear_padding(self) -> None:
        """Set the padding row of a drawn W_seed to 0; one that was given keeps its row."""
        if self.padding_idx is not None and self.source is not None and not self.W_seed.is_meta:
            untouched = is_untouched(self.W_seed)
            clear_row(self.W_seed, self.padding_idx)
            if untouched:
                mark(self.W_seed, self.source)
