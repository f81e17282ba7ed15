r"""The layers: a frozen random weight, and what steers it.

.. math:: h = \beta W_{seed}\, x + s\, B A x + b

Order of the optional parts: backbone path + adapter path (dropout on the adapter path) → DoRA → b → residual
→ LayerNorm. This module is the reference: it is written to be compared with the equation.

Letters: r rank, * any further axes.
"""

import math
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold import fused
from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.cost import Form
from lottalora.scaffold.draw import Source
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.identity import Identity
from lottalora.scaffold.lazy_weight import lazy_weight
from lottalora.scaffold.lazy_weight import refuse_reparametrization
from lottalora.scaffold.own_rows import is_shared_out
from lottalora.scaffold.path import choose


class LottaLayer(Frozen):
    """What linear layers and convolutions share: the parameters, and the dense weight that they amount to.

    Trained: A, B, β, and b where it is a parameter.  Frozen: W_seed, a buffer that is left out of
    `state_dict()`; and b where it is a buffer, which stays in it, since no seed gives it back.
    """

    bias: Tensor | None
    fused: str = "auto"  # see `path`
    taken: Form | None = None  # by the last call

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        bias: Tensor | None,
        source: Source | None,
        norm: nn.Module | None,
    ) -> None:
        super().__init__(W_seed, source)
        out, columns = W_seed.shape
        self.adapter = adapter
        if isinstance(bias, nn.Parameter) or bias is None:
            self.register_parameter("bias", bias)
        else:
            self.register_buffer("bias", bias)
        empty = {"device": W_seed.device, "dtype": adapter.dtype_beside(W_seed.dtype)}
        has = {
            "A": (adapter.rank, columns) if adapter.rank else None,
            "B": (out, adapter.rank) if adapter.rank else None,
            "beta": () if adapter.train_beta else None,
            "magnitude": (out,) if adapter.dora else None,
        }
        for name, shape in has.items():
            value = None if shape is None else nn.Parameter(torch.empty(shape, **empty))
            self.register_parameter(name, value)
        self.norm = norm
        self._write_record()
        self.reset_adapter()

    def record(self) -> Identity:
        adapter = self.adapter
        options = [name for name in ("dora", "residual", "layer_norm") if getattr(adapter, name)]
        scale = adapter.scale if adapter.rank else None
        return Identity.of(self.source, tuple(self.W_seed.shape), scale, options)

    @torch.no_grad()
    def reset_adapter(self) -> None:
        """Start values: β = 1, A Kaiming uniform as in LoRA (bound 1/√columns), B as the adapter says, m =
        ‖W‖.
        """
        if self.beta is not None:
            self.beta.fill_(1)
        if self.A is not None:
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
            nn.init.zeros_(self.B)
        if self.A is not None and self.adapter.B_init == "kaiming":
            nn.init.kaiming_uniform_(self.B, a=math.sqrt(5))
        if self.magnitude is not None:
            self.reset_magnitude()
        if self.norm is not None:
            self.norm.reset_parameters()

    @torch.no_grad()
    def reset_magnitude(self) -> None:
        """DoRA's start value: the norms of the rows as they are."""
        self.magnitude.copy_(self._matrix().norm(dim=1))

    @property
    def weight(self) -> Tensor:
        """W = β W_seed + s B A, after DoRA, in the shape and dtype of the layer that was replaced.

        For modules that read the weight of an inner layer instead of calling it; gradients reach A, B, β
        through it. It is composed when its values are used: reading its shape or dtype costs nothing.

        Raises:
            ValueError: when its values are used: with a residual skip, LayerNorm, or dropout in training, the
                layer is no single matrix; or other processes hold rows of it.
        """
        refuse_reparametrization(sys._getframe(1))
        if torch.compiler.is_compiling():  # which leaves out what is not used
            return self._composed() if self._is_matrix() else self._shape_only()
        trained = [p for p in (self.A, self.B, self.beta, self.magnitude) if p is not None]
        return lazy_weight(self._shape_only(), self.W_seed.device, self._composed, trained)

    def _is_matrix(self) -> bool:
        adapter = self.adapter
        several = adapter.residual or self.norm is not None or (adapter.dropout and self.training)
        return not several and not is_shared_out(self.W_seed)

    def _shape_only(self) -> Tensor:
        """Without values: on the meta device, in the shape and dtype of the weight."""
        return self._as_replaced(torch.empty(self.W_seed.shape, dtype=self.W_seed.dtype, device="meta"))

    def _composed(self) -> Tensor:
        if is_shared_out(self.W_seed):
            raise ValueError(
                "This net reads the weight of a layer whose rows are shared out among processes (fsdp), "
                "in place of calling the layer. Type trainer.strategy=ddp."
            )
        if not self._is_matrix():
            raise ValueError(
                "A layer with residual, layer_norm or adapter dropout is no single matrix: call it instead."
            )
        self.check(self.W_seed)
        return self._as_replaced(self._renormalised())

    def _as_replaced(self, W: Tensor) -> Tensor:
        """A matrix (out, in) in the shape of the weight that was replaced."""
        return W

    def _renormalised(self) -> Tensor:
        W = self._matrix()
        return W if self.magnitude is None else W * self._renormalisation(W)[:, None]

    def _matrix(self) -> Tensor:
        W = self.W_seed if self.beta is None else self.beta.to(self.W_seed.dtype) * self.W_seed
        return W if self.A is None else W + self.adapter.scale * (self.B @ self.A).to(W.dtype)

    def _renormalisation(self, W: Tensor) -> Tensor:
        """DoRA's m / ‖W‖, (out,); 1 for a row that is 0, which has no direction yet."""
        norm = W.detach().norm(dim=1)
        tiny = torch.finfo(norm.dtype).tiny
        return torch.where(norm > tiny, self.magnitude.to(W.dtype) / norm.clamp_min(tiny), 1)

    def combine(self, x: Tensor, frozen: Tensor, update: Tensor | None, features: tuple[int, ...]) -> Tensor:
        """From the two paths to the output; `features` is the shape in which (out,) broadcasts over it."""
        h = frozen if self.beta is None else self.beta.to(frozen.dtype) * frozen
        if update is not None:
            h = h + self.adapter.scale * update
        if self.magnitude is not None:
            h = h * self._renormalisation(self._matrix()).to(h.dtype).view(features)
        return self.finish(x, h, features)

    def finish(self, x: Tensor, h: Tensor, features: tuple[int, ...], *, biased: bool = False) -> Tensor:
        """From W x to the output: what comes after the matrix, whichever way the product was taken.

        In the dtype of h: under autocast that of the product, as in a dense layer.
        """
        if self.bias is not None and not biased:
            h = h + self.bias.to(h.dtype).view(features)
        if self.adapter.residual:
            h = h + x.to(h.dtype)
        return h if self.norm is None else self.norm(h).to(h.dtype)

    def _own_fn(self, fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A, B, β, m and their gradients follow a cast as `adapter_dtype` says."""
        own = [p for p in (self.A, self.B, self.beta, self.magnitude) if p is not None]
        kept = {id(t) for p in own for t in (p, p.grad) if t is not None}

        def of_own(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) not in kept or not moved.is_floating_point() or moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device, self.adapter.dtype_beside(moved.dtype))

        return of_own

    def extra_repr(self) -> str:
        out, columns = self.W_seed.shape
        family = "given W_seed" if self.source is None else f"{self.source.family}, seed {self.source.seed}"
        text = f"{columns} → {out}, rank {self.adapter.rank}, scale {self.adapter.scale:g}, {family}"
        text += "" if self.fused == "auto" else f", fused={self.fused}"
        return text if self.taken is None else f"{text}, by {self.taken.value}"


class LottaLinear(LottaLayer):
    r"""A linear layer whose dense weight is random and never trained.

    .. math:: h = \beta W_{seed}\, x + s\, B A x + b

    Args:
        W_seed: the frozen weight, (out, in).
        adapter: rank, α and the options; see `Adapter`.
        bias: b, (out,): an `nn.Parameter` is trained, any other tensor is frozen; None for a layer without.
        source: where W_seed comes from, so that it can be drawn again; None for a weight of one's own.

    Raises:
        ValueError: residual=True where in ≠ out.

    Source: the paper, Eq. 1; the A, B update is LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685
    """

    def __init__(
        self, W_seed: Tensor, adapter: Adapter, *, bias: Tensor | None = None, source: Source | None = None
    ) -> None:
        out, columns = W_seed.shape
        if adapter.residual and out != columns:
            raise ValueError(f"residual=True needs as many outputs as inputs, got {columns} → {out}.")
        norm = nn.LayerNorm(out, device=W_seed.device, dtype=W_seed.dtype) if adapter.layer_norm else None
        super().__init__(W_seed, adapter, bias, source, norm)

    @property
    def in_features(self) -> int:
        return self.W_seed.shape[1]

    @property
    def out_features(self) -> int:
        return self.W_seed.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        form = choose(self, x)
        if form is not Form.REFERENCE:
            return self._fused(x, form)
        frozen = F.linear(x, self.W_seed)  # (*, in) → (*, out)
        update = None
        if self.A is not None:
            dropped = F.dropout(x, self.adapter.dropout, self.training)
            A, B = self.A.to(x.dtype), self.B.to(x.dtype)
            update = F.linear(F.linear(dropped, A), B)  # (*, in) → (*, r) → (*, out)
        return self.combine(x, frozen, update, (-1,))

    def _fused(self, x: Tensor, form: Form) -> Tensor:
        """The same by the fast path."""
        dora = self.magnitude is not None  # b comes after it
        parts = (self.W_seed, self.beta, self.A, self.B, None if dora else self.bias)
        dropout = self.adapter.dropout if self.training else 0.0
        h = fused.linear(x, *parts, scale=self.adapter.scale, form=form, dropout=dropout)
        if dora:
            with torch.no_grad():
                W = self._matrix()
            h = h * self._renormalisation(W).to(h.dtype)
        return self.finish(x, h, (-1,), biased=not dora)
