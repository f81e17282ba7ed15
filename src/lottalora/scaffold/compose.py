r"""Composed weights, for modules without a layer of ours: W is computed whenever the module reads it.

.. math:: W = \beta W_{seed} + s\, B A

The module that owns the weight gets a subclass of its own class, in which the parameter's name is a property
that computes W. A, B, β and W_seed are in a child of the module, named `composed_` and the parameter's name.
So `parameters()`, `state_dict()`, `functional_call`, `deepcopy` and `pickle` see ordinary modules.

Letters: E matrices in a stack, r rank, g groups, k a kernel's extents.
"""

import contextlib
import functools
import math
import sys
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.draw import Source
from lottalora.scaffold.identity import Identity
from lottalora.scaffold.kinds import is_transposed_convolution
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.lazy_weight import lazy_weight
from lottalora.scaffold.reparametrization import WithoutWeight
from lottalora.scaffold.reparametrization import refuse_assignment
from lottalora.scaffold.reparametrization import refuse_reparametrization
from lottalora.scaffold.reparametrization import refusing_text

PREFIX = "composed_"
STARTING = "_starting"  # the attribute that `starting` sets
KERNELS = (_ConvNd, nn.Bilinear)  # their weight is one matrix, (out, all other axes)


@dataclass(frozen=True)
class Layout:
    """How a tensor is read as a matrix, or as several matrices stacked along the rows.

    Args:
        shape: the shape of the tensor.
        stack: E, the number of matrices.
        groups: g of a transposed convolution, whose kernel is (in, out / g, *k); 0 for any other tensor.
    """

    shape: tuple[int, ...]
    stack: int = 1
    groups: int = 0

    @classmethod
    def of(cls, owner: nn.Module, tensor: Tensor) -> "Layout":
        """The layout of a tensor, of any shape, in the module that owns it.

        Two axes are a matrix. Of three axes, all longer than 1, the first numbers the matrices, such as
        experts. Of more axes, and in a convolution, the first is out and all others are in. Of three axes or
        more, those of length 1 are skipped.
        """
        shape = tuple(tensor.shape)
        if is_transposed_convolution(owner):
            return cls(shape, groups=owner.groups)
        if len(shape) == 3 and min(shape) > 1 and not isinstance(owner, KERNELS):
            return cls(shape, stack=shape[0])
        return cls(shape)

    @property
    def matrix(self) -> tuple[int, int]:
        """(rows of all matrices, columns)."""
        size = math.prod(self.shape)
        if self.groups:
            rows = self.shape[1] * self.groups
        elif self.stack > 1:
            rows = self.shape[0] * self.shape[1]
        elif len(self.shape) == 2:
            rows = self.shape[0]  # 1 too: a table of one row is looked up by it
        else:
            rows = next((n for n in self.shape if n > 1), 1)
        return rows, size // rows

    def to_matrix(self, tensor: Tensor) -> Tensor:
        """Reshape the tensor, of `shape`, to (E · out, in)."""
        if self.groups:
            tensor = tensor.unflatten(0, (self.groups, -1)).transpose(1, 2)  # (g, out / g, in / g, *k)
        return tensor.reshape(self.matrix)

    def to_tensor(self, matrix: Tensor) -> Tensor:
        """Reshape the matrix, (E · out, in), to `shape`."""
        if not self.groups:
            return matrix.view(self.shape)
        inputs, outputs, *kernel = self.shape
        parts = matrix.view(self.groups, outputs, inputs // self.groups, *kernel)
        return parts.transpose(1, 2).reshape(self.shape).contiguous()


class LottaWeight(LottaLayer):
    r"""One composed weight; calling it computes W.

    .. math:: W = \beta W_{seed} + s\, B A

    Trained: A, B and β, separate for each matrix of a stack.  Frozen: W_seed.

    Args:
        W_seed: the frozen matrices, stacked along the rows, (E · out, in).
        adapter: rank, α and the options; dropout, residual and layer_norm are ignored, since they need a
            layer's input or output.
        layout: the layout of the tensor that the owner reads.
        source: the source that W_seed was drawn from; None for a W_seed that was given.
        padding_idx: the row of an embedding that stays 0.
    """

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        layout: Layout,
        *,
        source: Source | None = None,
        padding_idx: int | None = None,
    ) -> None:
        self.layout, self.padding_idx = replace(layout, stack=1), None
        super().__init__(W_seed, without_activations(adapter), None, source, None)
        self.layout, self.padding_idx = layout, padding_idx
        if layout.stack > 1:
            self._give_each_its_own()
        self._clear_padding()
        self._write_record()

    def record(self) -> Identity:
        """The record of this weight's scaffold and options, without a fingerprint."""
        record = super().record()
        stack = [f"stack of {self.layout.stack}"] if self.layout.stack > 1 else []
        return replace(record, options=[*record.options, *stack])

    def _give_each_its_own(self) -> None:
        """Give each matrix of a stack its own adapter: A (E · r, in), B (E · out, r), β (E,)."""
        E, r = self.layout.stack, self.adapter.rank
        if self.A is not None:
            self.A = nn.Parameter(self.A.new_empty(E * r, self.A.shape[1]))
        if self.beta is not None:
            self.beta = nn.Parameter(self.beta.new_empty(E))
        self.reset_adapter()

    def forward(self, index: Tensor | None = None, padding: int | None = None, **options: bool) -> Tensor:
        """Compute the whole tensor, or the rows of an index.

        This is `forward`, and not another method, because FSDP gathers W_seed for calls.

        Args:
            index: the rows to compute, (*); None for the whole tensor.
            padding, options: of `rows`.

        Returns:
            The tensor in the layout's shape, or the rows, (*, in).
        """
        self.check(self._trained_or_frozen() if index is None else index)
        if index is not None:
            return self.rows(index, padding, **options)
        return self._as_replaced(self._renormalised())

    def _as_replaced(self, W: Tensor) -> Tensor:
        return self.layout.to_tensor(W)

    @property
    def weight(self) -> Tensor:
        """The whole tensor, in the layout's shape."""
        weight: Tensor = self()
        return weight

    def lazy(self) -> Tensor:
        """The whole tensor, computed when its values are used; writing into it is refused."""
        return lazy_weight(self._shape_only(), self.device_of_W_seed, self, self._trained())

    def _matrix(self) -> Tensor:
        E = self.layout.stack
        if E == 1:
            return super()._matrix()
        W: Tensor = self.W_seed.unflatten(0, (E, -1))  # (E, out, in)
        if self.beta is not None:
            W = self.beta.to(W.dtype).view(E, 1, 1) * W
        if self.A is not None and self.B is not None:
            A, B = (x.unflatten(0, (E, -1)) for x in (self.A, self.B))  # (E, r, in), (E, out, r)
            W = W + self.adapter.scale * (B @ A).to(W.dtype)
        return W.flatten(0, 1)

    def rows(
        self, index: Tensor, padding: int | None = None, *, sparse: bool = False, by_frequency: bool = False
    ) -> Tensor:
        """Compute only the rows W[index] = β W_seed[index] + s B[index] A, (*) → (*, in).

        Args:
            index: the rows, (*).
            padding: the row that gives no gradient to β, A and B, as it gives none to a plain table. Tied
                embeddings may differ in it.
            sparse: whether the gradient of B is a sparse tensor.
            by_frequency: whether the gradient of a row is divided by how often `index` contains it.
        """
        h = F.embedding(index, self.W_seed)
        if self.beta is not None:
            h = self.beta.to(h.dtype) * h
        if self.A is not None and self.B is not None:
            B = F.embedding(index, self.B, padding, sparse=sparse)
            h = h + self.adapter.scale * (B @ self.A).to(h.dtype)
        if self.magnitude is not None:
            length = h.detach().norm(dim=-1).clamp_min(torch.finfo(h.dtype).tiny)
            h = h * (F.embedding(index, self.magnitude[:, None], padding)[..., 0] / length)[..., None]
        if by_frequency:
            counts = self._counts(index)[..., None].to(torch.promote_types(h.dtype, torch.float32))
            h = with_gradient_times(h, (1 / counts).to(h.dtype))
        if padding is not None and torch.is_grad_enabled():
            h = torch.where((index == padding)[..., None], h.detach(), h)
        return h

    def _counts(self, index: Tensor) -> Tensor:
        """How often `index` contains each of its entries, (*), in whole numbers: bfloat16 ends at 256."""
        flat = index.flatten()
        found = flat.new_zeros(self.layout.shape[0], dtype=torch.long)
        return found.index_add(0, flat, found.new_ones(len(flat)))[index]

    @torch.no_grad()
    def reset_adapter(self) -> None:
        """Set the start values, with those of the padding row at 0."""
        super().reset_adapter()
        self._clear_padding()

    @torch.no_grad()
    def _clear_padding(self) -> None:
        super()._clear_padding()
        if self.padding_idx is not None and self.B is not None and not self.B.is_meta:
            self.B[self.padding_idx] = 0


class LookUp(nn.Embedding):
    """An embedding with a composed table, which computes only the rows that are looked up."""

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the table, (*) → (*, features)."""
        table = self.get_submodule(PREFIX + "weight")
        h: Tensor = table(
            input, padding=self.padding_idx, sparse=self.sparse, by_frequency=self.scale_grad_by_freq
        )
        if self.max_norm is None:
            return h
        length: Tensor = h.detach().norm(self.norm_type, dim=-1, keepdim=True)
        return h * (self.max_norm / (length + 1e-7)).clamp_max(1)  # 1e-7: as in torch's renorm


def with_gradient_times(h: Tensor, factor: Tensor) -> Tensor:
    """h to the bit, whose gradient is multiplied by the factor."""
    own = factor * h
    return h.detach() + (own - own.detach())


def without_activations(adapter: Adapter) -> Adapter:
    """The adapter without dropout, residual and layer_norm, which need a layer's input or output."""
    return replace(adapter, dropout=0.0, residual=False, layer_norm=False)


def compose(owner: nn.Module, weights: dict[str, LottaWeight]) -> None:
    """Replace parameters of a module by composed weights, in place.

    Args:
        owner: the module.
        weights: the composed weights, by the names of the parameters that they replace.
    """
    cls = composed_class(type(owner), tuple(weights))
    for name, weight in weights.items():
        del owner._parameters[name]
        owner._modules[PREFIX + name] = weight
    owner._parameters = WithoutWeight(owner._parameters)
    if isinstance(owner, nn.RNNBase):
        owner.__dict__.pop("_flat_weights", None)  # it holds the dense weights
        owner.__dict__["_flat_weight_refs"] = []
    owner.__class__ = cls


def composed_weights(module: nn.Module) -> dict[str, LottaWeight]:
    """The composed weights of a module, by the parameter's name; empty for a module without."""
    names: tuple[str, ...] = getattr(type(module), "composed_names", ())
    return {name: cast(LottaWeight, module._modules[PREFIX + name]) for name in names}


def composed_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of `base` that reads each parameter in `names` from a composed weight; made once."""
    # mypy takes the __hash__ of nn.Module's instances for that of the class.
    cls: type[nn.Module] = _composed_class(base, names)  # type: ignore[arg-type]  # see above
    return cls


@functools.cache
def _composed_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    body: dict[str, object] = {name: property(_reader(PREFIX + name)) for name in names}
    body |= {"plain_class": base, "composed_names": names, "__reduce_ex__": _reduce}
    body |= {"__repr__": refusing_text(base.__repr__), "__setattr__": _setter(base, names)}
    body |= {"__module__": base.__module__, "__doc__": base.__doc__}
    bases: tuple[type[nn.Module], ...] = (base,)
    if callable(getattr(base, "reset_parameters", None)):
        body["reset_parameters"] = _starter(base)
    if issubclass(base, nn.RNNBase):
        nothing = {name: _do_nothing for name in RECURRENT_CACHE}
        body |= nothing | {"_flat_weights": property(_flat_weights, _do_nothing)}
    if issubclass(base, nn.ModuleDict):
        views = ("keys", "values", "items", "__iter__", "__len__")
        body |= {name: _of_items(getattr(dict, name)) for name in views}
    if issubclass(base, nn.Sequential | nn.ModuleList):
        body |= {"__iter__": _of_items(lambda items: iter(items.values())), "__len__": _of_items(len)}
    if issubclass(base, nn.Embedding) and "weight" in names:
        # LookUp comes right before nn.Embedding, so that a forward of `base` reaches it through super().
        bases = (LookUp,) if base is nn.Embedding else (base, LookUp)
    return types.new_class(f"Composed{base.__name__}", bases, exec_body=lambda space: space.update(body))


RECURRENT_CACHE = ("_init_flat_weights", "_update_flat_weights", "flatten_parameters")


def _reader(child: str) -> Callable[[nn.Module], Tensor]:
    def read(self: nn.Module) -> Tensor:
        part = cast(LottaWeight, self._modules[child])
        if torch.compiler.is_compiling() or vars(self).get(STARTING):
            return part.weight
        refuse_reparametrization(sys._getframe(1))
        return part.lazy()

    return read


def _setter(base: type[nn.Module], names: tuple[str, ...]) -> Callable[[nn.Module, str, nn.Module], None]:
    caches = base.__setattr__ is nn.RNNBase.__setattr__  # and reads all weights for it; see RECURRENT_CACHE
    write = nn.Module.__setattr__ if caches else base.__setattr__

    def set_attribute(self: nn.Module, name: str, value: nn.Module) -> None:
        if name in names:
            refuse_assignment(name)
        write(self, name, value)

    return set_attribute


@contextlib.contextmanager
def starting(module: nn.Module) -> Iterator[None]:
    """A context manager for setting start values: what is written into a composed weight of it is lost."""
    vars(module)[STARTING] = True
    try:
        yield
    finally:
        del vars(module)[STARTING]


def _starter(base: type[nn.Module]) -> Callable[[nn.Module], None]:
    """A `reset_parameters` that starts the adapters as `wrap` does, and all else as `base` does."""

    def reset_parameters(self: nn.Module) -> None:
        with starting(self):
            base.reset_parameters(self)  # type: ignore[attr-defined]  # it was found
        for part in composed_weights(self).values():
            part.reset_adapter()

    return reset_parameters


Children = Mapping[str, nn.Module | None]


def _of_items(view: Callable[[Children], object]) -> Callable[[nn.Module], object]:
    """A method of a container that leaves out the composed weights among its children."""

    def method(self: nn.Module) -> object:
        return view({name: child for name, child in self._modules.items() if not name.startswith(PREFIX)})

    return method


def _flat_weights(self: nn.RNNBase) -> list[Tensor]:
    composed = composed_weights(self)
    names = self._flat_weights_names
    return [composed[name].weight if name in composed else getattr(self, name) for name in names]


def _do_nothing(self: nn.Module, *_: object) -> None:
    return None


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    cls: Any = type(self)  # of `composed_class`, which has put the two names there
    return _rebuild, (cls.plain_class, cls.composed_names), self.__getstate__()


def _rebuild(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    cls = composed_class(base, names)
    return cls.__new__(cls)
