r"""A composed weight: W in the shape of the tensor that it replaces, computed whenever a module reads it.

.. math:: W = \beta W_{seed} + s\, B A

Letters: E matrices in a stack, r rank, g groups, k a kernel's extents.
"""

import math
from dataclasses import dataclass
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.layers.kinds import is_transposed_convolution
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.layer import product
from lottalora.scaffold.layers.lazy_weight import lazy_weight

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

        Raises:
            ValueError: the index is no index, as where a forward of the owner calls all its children.
        """
        self.check(self._trained_or_frozen() if index is None else index)
        if index is not None:
            _refuse_activations(index)
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
            W = W + self.adapter.scale * product(B, A, W.dtype)
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
            h = h + self.adapter.scale * product(B, self.A, h.dtype)
        if self.magnitude is not None:
            length = h.detach().norm(dim=-1).clamp_min(torch.finfo(h.dtype).tiny)
            magnitude = F.embedding(index, self.magnitude[:, None], padding)[..., 0].to(h.dtype)
            h = h * (magnitude / length)[..., None]
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


def _refuse_activations(index: Tensor) -> None:
    if isinstance(index, Tensor) and (index.is_floating_point() or index.is_complex()):
        raise ValueError(
            "A composed weight was called with activations. It is a child of the module whose weight it is, "
            "so a forward that calls all of self.children() calls it too: name the children there, or name "
            "the weight in keep=."
        )


def with_gradient_times(h: Tensor, factor: Tensor) -> Tensor:
    """h to the bit, whose gradient is multiplied by the factor."""
    own = factor * h
    return h.detach() + (own - own.detach())


def without_activations(adapter: Adapter) -> Adapter:
    """The adapter without dropout, residual and layer_norm, which need a layer's input or output."""
    return replace(adapter, dropout=0.0, residual=False, layer_norm=False)
