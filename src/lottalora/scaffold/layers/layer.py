r"""The base of the layers: a frozen random weight with a trained low-rank adapter.

.. math:: h = \beta W_{seed}\, x + s\, B A x + b

Order of the optional parts: backbone path + adapter path (dropout on the adapter path) → DoRA → b → residual
→ LayerNorm. This module is the reference, written so that it can be compared with the equation.

Letters: r rank, * any further axes.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.drawing.local_rows import refuse_shared_out
from lottalora.scaffold.drawing.local_rows import shaped_like
from lottalora.scaffold.fused import linear as fused
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.layers.lazy_weight import lazy_weight
from lottalora.scaffold.layers.path import composes_in_one_call
from lottalora.scaffold.layers.path import take
from lottalora.scaffold.layers.reparametrization import refuse_reparametrization
from lottalora.scaffold.layers.tracing import refuse_symbolic


class LottaLayer(Frozen):
    """The base of linear layers and convolutions: their parameters, and the dense weight they are equal to.

    Trained: A, B, β, DoRA's m, and b if it is a parameter.  Frozen: W_seed, a buffer that `state_dict()`
    leaves out; and b if it is a buffer, which `state_dict()` contains, since no seed gives it back.

    Args:
        W_seed: the frozen weight, (out, in).
        adapter: rank, α and the options; see `Adapter`.
        bias: b, (out,): an `nn.Parameter` is trained, any other tensor is frozen; None for no bias.
        source: the source that W_seed was drawn from; None for a W_seed that was given.
        norm: the normalisation of the output; None for none.
    """

    A: nn.Parameter | None
    B: nn.Parameter | None
    beta: nn.Parameter | None
    magnitude: nn.Parameter | None
    bias: Tensor | None
    norm: nn.LayerNorm | nn.GroupNorm | None
    fused: str = "auto"  # see `path`
    taken: Form | None = None  # in the last training step; see `path`

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        bias: Tensor | None,
        source: Source | None,
        norm: nn.LayerNorm | nn.GroupNorm | None,
    ) -> None:
        super().__init__(W_seed, source)
        out, columns = W_seed.shape
        self.adapter = adapter
        if bias is not None and bias.shape != (out,):
            raise ValueError(f"The bias must have the shape ({out},), got {tuple(bias.shape)}.")
        if isinstance(bias, nn.Parameter) or bias is None:
            self.register_parameter("bias", bias)
        else:
            self.register_buffer("bias", bias)
        dtype = adapter.dtype_beside(W_seed.dtype)
        shapes: dict[str, tuple[int, ...] | None] = {
            "A": (adapter.rank, columns) if adapter.rank else None,
            "B": (out, adapter.rank) if adapter.rank else None,
            "beta": () if adapter.train_beta else None,
            "magnitude": (out,) if adapter.dora else None,
        }
        for name, shape in shapes.items():
            empty = None if shape is None else torch.empty(shape, dtype=dtype, device=W_seed.device)
            self.register_parameter(name, None if empty is None else nn.Parameter(empty))
        self.norm = norm
        self._write_record()
        self.reset_adapter()

    def record(self) -> Identity:
        """The record of this layer's scaffold and options, without a fingerprint."""
        adapter = self.adapter
        options = [name for name in ("dora", "residual", "layer_norm") if getattr(adapter, name)]
        scale = adapter.scale if adapter.rank else None
        return Identity.of(self.source, tuple(self.W_seed.shape), scale, options)

    @torch.no_grad()
    def reset_adapter(self) -> None:
        """Set the start values: β = 1, A and B by `A_init` and `B_init`, m = ‖W‖."""
        if self.beta is not None:
            self.beta.fill_(1)
        if self.A is not None and self.B is not None:
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
            if self.adapter.A_init == "normal":
                nn.init.normal_(self.A, std=1 / math.sqrt(self.A.shape[-1]))
            elif self.adapter.A_init == "zeros":
                nn.init.zeros_(self.A)
            nn.init.zeros_(self.B)
            if self.adapter.B_init == "kaiming":
                nn.init.kaiming_uniform_(self.B, a=math.sqrt(5))
        self.reset_magnitude()
        if self.norm is not None:
            self.norm.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set the start values of all that is trained, as `nn.Linear` does under this name."""
        self.reset_adapter()
        if isinstance(self.bias, nn.Parameter):
            self.reset_bias()

    @torch.no_grad()
    def reset_bias(self) -> None:
        """Set the start values of b as in `nn.Linear`: uniform, ± 1/√in."""
        if self.bias is not None:
            self.bias.uniform_(-1, 1).div_(math.sqrt(self.W_seed.shape[1]))

    @torch.no_grad()
    def reset_magnitude(self) -> None:
        """Set DoRA's m, if there is one, to the present norms of the rows of W."""
        if self.magnitude is not None:
            self.magnitude.copy_(self._matrix().norm(dim=1))

    @property
    def weight(self) -> Tensor:
        """W = β W_seed + s B A, after DoRA, in the shape and dtype of the weight that was replaced.

        For modules that read the weight of an inner layer instead of calling it. Gradients reach A, B and β
        through it. It is computed when its values are used, so reading its shape or dtype costs nothing.

        Raises:
            ValueError: pruning or a parametrization reads it. Or, when its values are used: the layer is not
                one matrix (residual, layer_norm, or dropout in training), or other processes hold some of its
                rows.
        """
        if torch.compiler.is_compiling():  # the compiler removes unused products itself
            return self._composed() if self._is_matrix() else self._shape_only()
        refuse_reparametrization(sys._getframe(1))
        return lazy_weight(self._shape_only(), self.device_of_W_seed, self._composed, self._trained())

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in (self.A, self.B, self.beta, self.magnitude) if p is not None]

    def _is_matrix(self) -> bool:
        adapter = self.adapter
        several = adapter.residual or self.norm is not None or (adapter.dropout and self.training)
        return not several and not is_shared_out(self.W_seed)

    def _shape_only(self) -> Tensor:
        """A tensor on the meta device with the shape and dtype of the weight."""
        return self._as_replaced(torch.empty(self.W_seed.shape, dtype=self.W_seed.dtype, device="meta"))

    def _composed(self) -> Tensor:
        refuse_shared_out(self.W_seed)
        if not self._is_matrix():
            raise ValueError(
                "A layer with residual, layer_norm or adapter dropout is no single matrix: call it instead."
            )
        W_seed = self.W_seed
        self.check(self._trained_or_frozen() if W_seed.is_meta else W_seed)
        if not torch.compiler.is_compiling():
            take(self, Form.MERGE)
        return self._as_replaced(self._renormalised())

    def _trained_or_frozen(self) -> Tensor:
        """A tensor that says on which device the layer is, even if W_seed has not arrived there."""
        without = self.W_seed if self.home is None else torch.empty(0, device=self.home)
        return next((p for p in (self.A, self.beta) if p is not None), without)

    def _as_replaced(self, W: Tensor) -> Tensor:
        """A matrix (out, in) in the shape of the weight that was replaced."""
        return W

    def _renormalised(self) -> Tensor:
        W = self._matrix()
        return W if self.magnitude is None else W * self._renormalisation(W)[:, None]

    def _matrix(self) -> Tensor:
        W, beta, A, B = self.W_seed, self.beta, self.A, self.B  # a module's attributes are slow to read
        if composes_in_one_call(self, W, A):
            return fused.compose(W, beta, A, B, self.adapter.scale)
        W = W if beta is None else beta.to(W.dtype) * W
        if A is None or B is None:
            return W
        return W + self.adapter.scale * product(B, A, W.dtype)

    def _renormalisation(self, W: Tensor) -> Tensor:
        """DoRA's m / ‖W‖, (out,); 1 for a row of zeros, which has no direction yet."""
        assert self.magnitude is not None, "only with dora=True"
        refuse_symbolic(W, "a layer with dora")
        norm = W.detach().norm(dim=1)
        tiny = torch.finfo(norm.dtype).tiny
        return torch.where(norm > tiny, self.magnitude.to(W.dtype) / norm.clamp_min(tiny), 1)

    def combine(self, x: Tensor, frozen: Tensor, update: Tensor | None, features: tuple[int, ...]) -> Tensor:
        """Add the two paths up and apply the optional parts.

        Args:
            x: the input.
            frozen: W_seed x, of the output's shape.
            update: B A x, of the output's shape; None without an adapter.
            features: the shape in which a vector (out,) broadcasts over the output.
        """
        h = frozen if self.beta is None else self.beta.to(frozen.dtype) * frozen
        if update is not None:
            h = torch.add(h, update, alpha=self.adapter.scale)  # one kernel, and none backward if s = 1
        if self.magnitude is not None:
            h = h * self._renormalisation(self._matrix()).to(h.dtype).view(features)
        return self.finish(x, h, features)

    def finish(
        self,
        x: Tensor,
        h: Tensor,
        features: tuple[int, ...],
        *,
        biased: bool = False,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Add b, unless h has it, the residual and the normalisation to h = W x.

        Args:
            x: the input.
            h: W x, of the output's shape.
            features: the shape in which a vector (out,) broadcasts over h.
            biased: whether h has b already.
            normalise: what to do instead of `norm`, where a row has a gain and a shift of its own.

        Returns:
            The output, in the dtype of h: under autocast that of the product, as in a dense layer.
        """
        if self.bias is not None and not biased:
            h = h + self.bias.to(h.dtype).view(features)
        if self.adapter.residual:
            h = h + x.to(h.dtype)
        if self.norm is None:
            return h
        normalised: Tensor = self.norm(h) if normalise is None else normalise(h)
        return normalised.to(h.dtype)

    def _own_fn(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Like `fn`, but a cast gives A, B, β, m and their gradients the dtype that `adapter_dtype` says."""
        kept = {id(t) for p in self._trained() for t in (p, p.grad) if t is not None}

        def of_own(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) not in kept or not moved.is_floating_point() or moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device, self.adapter.dtype_beside(moved.dtype))

        return of_own

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: object
    ) -> None:
        given, own = state_dict.get(f"{prefix}beta"), self._parameters.get("beta")
        if given is not None and own is not None and given.shape != own.shape and given.numel() == 1:
            state_dict[f"{prefix}beta"] = shaped_like(own, given)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        """In, out, rank, scale and the source of W_seed, for `print(model)`."""
        out, columns = self.W_seed.shape
        family = "given W_seed" if self.source is None else f"{self.source.family}, seed {self.source.seed}"
        text = f"{columns} → {out}, rank {self.adapter.rank}, scale {self.adapter.scale:g}, {family}"
        text += "" if self.fused == "auto" else f", fused={self.fused}"
        return text if self.taken is None else f"{text}, by {self.taken.value}"


def product(B: Tensor, A: Tensor, dtype: torch.dtype) -> Tensor:
    """B A, (…, out, in), in a dtype; it is computed in the wider one of that and the adapter's."""
    wider = torch.promote_types(dtype, A.dtype)
    return (B.to(wider) @ A.to(wider)).to(dtype)
