"""Several adapters on one scaffold: switch between them, or use another one for each row of a batch."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn
from torch.autograd.graph import increment_version

from lottalora.scaffold.fused.linear import cast_as_autocast_does
from lottalora.scaffold.layers.in_block import Block
from lottalora.scaffold.layers.in_block import enter
from lottalora.scaffold.layers.in_block import leave
from lottalora.scaffold.layers.in_block import refuse_other_forward
from lottalora.scaffold.layers.in_block import stop_own_rows
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.whole_model.examples_first import refuse_time_first
from lottalora.scaffold.wrapping.matrices import dotted

NORM = ("norm.weight", "norm.bias")  # of the option layer_norm
OWN = ("A", "B", "beta", "magnitude", "bias", *NORM)  # what an adapter has of a layer, where it is trained


class Adapters:
    r"""The adapters of one wrapped model: A, B, β and trained biases, by name; W_seed is there once.

    .. math:: h_i = \beta_{a(i)} W_{seed}\, x_i + s\, B_{a(i)} A_{a(i)} x_i + b_{a(i)}

    Gain and shift of the option `layer_norm` belong to an adapter too. Heads, the model's own norms and
    embeddings belong to the model, so all adapters share them. The adapter in use is that of `set_adapter`;
    training changes it in place. Begin a new optimizer after each switch.

    Args:
        model: a model that `wrap` has wrapped. Its present adapter gets the name `name`.
        name: of the present adapter.

    Raises:
        ValueError: the model has no adapter, or has one inside another module's weight (compose=).
    """

    def __init__(self, model: nn.Module, name: str = "default") -> None:
        self.model = model
        layers = scaffold_layers(model)
        others = [key for key, each in layers.items() if not isinstance(each, LottaLayer)]
        adapted = [key for key in others if any(True for _ in layers[key].parameters(recurse=False))]
        if adapted:
            raise ValueError(f"The adapter of {adapted[0]!r} is composed, and cannot be switched: keep it.")
        self._layers = {key: each for key, each in layers.items() if isinstance(each, LottaLayer)}
        present = self._parameters()
        if not present:
            raise ValueError("This model has no adapter: call wrap(model, Scaffold(rank=8)) first.")
        self._states = {name: {key: p.data for key, p in present.items()}}
        self.active = name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all adapters, in the order in which they came."""
        return tuple(self._states)

    def state(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter, by their names in `state_dict()`; they are not copied.

        They have the model's present dtype and device. Those of the adapter in use are the model's.

        Raises:
            ValueError: there is no such adapter, or the model was merged.
        """
        if name not in self._states:
            raise ValueError(f"There is no adapter {name!r}. There are: {', '.join(self._states)}.")
        held, present = self._states[name], self._parameters()
        if name == self.active:
            self._states[name] = {key: p.data for key, p in present.items()}  # a cast has replaced them
        else:
            self._states[name] = {key: held[key].to(p.device, p.dtype) for key, p in present.items()}
        return dict(self._states[name])

    def add_adapter(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Add an adapter; the one in use stays in use.

        Args:
            name: of the new adapter.
            state: its tensors, named as by `state`; they are copied to the model's device and dtype.

        Raises:
            ValueError: the name is taken, the tensors are not those of an adapter of this model, or the model
                was merged.
        """
        if name in self._states:
            raise ValueError(f"There is an adapter {name!r} already. Choose another name.")
        present = self._parameters()
        if different := sorted(state.keys() ^ present.keys()):
            place = "is missing from" if different[0] in present else "does not belong to"
            raise ValueError(f"Tensor {different[0]!r} {place} an adapter of this model.")
        for key, parameter in present.items():
            if state[key].shape != parameter.shape:
                shapes = f"{tuple(state[key].shape)}, not {tuple(parameter.shape)}"
                raise ValueError(f"Tensor {key!r} of adapter {name!r} has the shape {shapes}.")
        self._states[name] = {
            key: state[key].detach().to(p.device, p.dtype, copy=True) for key, p in present.items()
        }

    def set_adapter(self, name: str) -> None:
        """Use an adapter from now on: the parameters point to other tensors, and nothing is copied or drawn.

        To autograd the parameters were written to: a backward pass through what the adapter before computed
        raises a RuntimeError, since it would mix the two.

        Raises:
            ValueError: there is no such adapter, or the model was merged.
        """
        state = self.state(name)
        self.state(self.active)  # notes what it has become
        for key, parameter in self._parameters().items():
            parameter.data = state[key]
            parameter.grad = None
            if name != self.active:
                increment_version(parameter)
        self.active = name

    @contextmanager
    def per_row(self, names: Sequence[str]) -> Iterator[nn.Module]:
        """Inside the block, row i of a batch passes through the adapter names[i].

        The frozen product is computed once for the whole batch. For inference: no gradient reaches A and B.
        A copy of the model that is made inside has the adapter in use for all rows.

        Args:
            names: of adapters, one for each row, the first axis of every adapted layer's input.

        Raises:
            ValueError: there is no such adapter, or a layer is no linear one or has an option of DoRA's kind;
                or the net reads a layer's weight in place of calling the layer, or has an attention with
                batch_first=False; or another block of this kind, or of `scaffolds_per_row`, is open; or
                somebody has set a `forward` on a layer.
        """
        refuse_time_first(self.model)
        chosen = {name: self.state(name) for name in dict.fromkeys(names)}
        place = torch.tensor([list(chosen).index(name) for name in names])
        layers: dict[str, LottaLinear] = {}
        for key, layer in self._layers.items():
            if not self._own(key):
                continue
            if not isinstance(layer, LottaLinear) or layer.magnitude is not None:
                raise ValueError(
                    f"Layer {key!r} cannot take another adapter for each row: it is no plain linear one. "
                    "Call set_adapter for one adapter at a time."
                )
            refuse_other_forward(key, layer)
            layers[key] = layer
        block = Block("per_row", stop_own_rows)
        try:
            for key, layer in layers.items():
                own = {
                    name: torch.stack([state[full] for state in chosen.values()])
                    for name, full in self._own(key).items()
                }
                enter(layer, block)
                layer.__dict__["_composed"] = _refuse_reading
                layer.__dict__["forward"] = partial(_by_row, layer, own, place.to(layer.W_seed.device))
            yield self.model
        finally:
            for layer in layers.values():
                leave(layer, block)

    def _own(self, key: str) -> dict[str, str]:
        """What an adapter has of a layer: the name in the layer → the name in the state."""
        trained = dict(self._layers[key].named_parameters())
        return {name: dotted(key, name) for name in OWN if name in trained}

    def _parameters(self) -> dict[str, nn.Parameter]:
        merged = next((key for key, layer in self._layers.items() if not isinstance(layer, LottaLayer)), None)
        if merged is not None:
            raise ValueError(f"Layer {merged!r} was merged, so it has no adapter: call unmerge first.")
        return {
            full: layer.get_parameter(name)
            for key, layer in self._layers.items()
            for name, full in self._own(key).items()
        }


def _by_row(layer: LottaLinear, own: Mapping[str, Tensor], place: Tensor, x: Tensor) -> Tensor:
    """The layer's h with the adapter place[i] for row i of x, (N, *, in) → (N, *, out)."""
    layer.check(x)
    if x.shape[0] != len(place):
        raise ValueError(f"The batch has {x.shape[0]} rows, and adapters are named for {len(place)}.")
    x = cast_as_autocast_does(x)
    each = {name: tensors[place] for name, tensors in own.items()}  # (N, …)
    norm = {name: each.pop(name) for name in NORM if name in each}  # in its own dtype, as `finish` has it
    each = {name: tensor.to(x.dtype) for name, tensor in each.items()}
    column = (-1, *[1] * (x.dim() - 1))
    h = F.linear(x, layer.W_seed.to(x.dtype))
    if "beta" in each:
        h = each["beta"].view(column) * h
    if "A" in each:
        flat = x.reshape(len(x), -1, x.shape[-1])  # (N, M, in)
        flat = F.dropout(flat, layer.adapter.dropout, layer.training)
        update = flat @ each["A"].mT @ each["B"].mT  # (N, M, in) → (N, M, r) → (N, M, out)
        h = h + layer.adapter.scale * update.view(h.shape)
    if "bias" in each:
        h = h + each["bias"].view(len(x), *[1] * (x.dim() - 2), -1)
    normalise = partial(_normalised, layer, norm) if norm else None
    return layer.finish(x, h, (-1,), biased="bias" in each, normalise=normalise)


def _normalised(layer: LottaLinear, own: Mapping[str, Tensor], h: Tensor) -> Tensor:
    """LayerNorm of h, (N, *, out), with a gain and a shift for each row, (N, out)."""
    assert isinstance(layer.norm, nn.LayerNorm), "that of a linear layer"
    gain, shift = (own[name].view(len(h), *[1] * (h.dim() - 2), -1) for name in NORM)
    return gain * F.layer_norm(h, layer.norm.normalized_shape, eps=layer.norm.eps) + shift


def _refuse_reading() -> Tensor:
    raise ValueError(
        "This net reads the weight of a layer in place of calling it, so its rows share one adapter. "
        "Call set_adapter for one adapter at a time."
    )
