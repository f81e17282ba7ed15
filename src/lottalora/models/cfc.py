"""CfC, the closed-form continuous-time network, with the loop over time written for speed.

Letters: B records of a batch, S steps of all of them, I inputs, K backbone units, H hidden units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

if TYPE_CHECKING:
    from lottalora.data.batches.batch import Sequences


class CfC(nn.Module):
    r"""A CfC cell and a dense head on its output at each record's last observed step.

    .. math:: z = \mathrm{backbone}([x, h]), \quad g = \sigma(a(z)\, \Delta t + b(z)), \quad
              h \leftarrow (1 - g) \tanh f_1(z) + g \tanh f_2(z)

    The cell is ncps's own and holds the weights: a backbone of two linears with SiLU, dropout behind the
    second, and the heads f₁, f₂, a, b. Its loop over time is replaced by one that gives the same, `Fused`.

    Args:
        in_shape: (I,), features and masks.
        out_dim: logits.
        hidden: H.
        backbone: K, of both linears.
        dropout: in the backbone.

    Source: Hasani et al., Nature Machine Intelligence 2022, https://arxiv.org/abs/2106.13898; the cell is
    `ncps.torch.CfCCell`.
    """

    def __init__(
        self, in_shape: Sequence[int], out_dim: int, *, hidden: int, backbone: int, dropout: float
    ) -> None:
        from ncps.torch import CfCCell

        super().__init__()
        self.dropout = dropout
        self.cell = CfCCell(
            *(*in_shape, hidden),
            backbone_activation="silu",
            backbone_units=backbone,
            backbone_layers=2,
            backbone_dropout=dropout,
        )
        self.head = nn.Linear(hidden, out_dim)

    def forward(self, x: Sequences) -> Tensor:
        with torch.autocast(x.inputs.device.type, enabled=False):  # its steps are too small to gain by bf16
            return self.head(self.last_state(x))  # (B, H) → (B, out_dim)

    def last_state(self, x: Sequences) -> Tensor:
        """h after the last observed step of each record, (B, H); padding is never looked at."""
        packed = pack_padded_sequence(x.inputs, x.lengths.cpu(), batch_first=True, enforce_sorted=False)
        elapsed = pack_padded_sequence(x.elapsed, x.lengths.cpu(), batch_first=True, enforce_sorted=False)
        first, second = (layer for layer in self.cell.backbone if hasattr(layer, "weight"))
        doubled, single = (self.cell.ff1, self.cell.ff2), (self.cell.time_b, self.cell.time_a)
        width = x.inputs.shape[2]
        # (K, I + H); on a scaffold composed here, once for both parts and all steps
        W_x, W_h = first.weight.split([width, self.cell.hidden_size], dim=1)
        drive = F.linear(packed.data, W_x, first.bias)  # (S, I) → (S, K), all steps at once
        kept = F.dropout(torch.ones_like(drive), self.dropout, self.training)  # (S, K), 0 or 1 / (1 − p)
        state = Fused.apply(
            drive,
            kept,
            elapsed.data[:, None],
            packed.batch_sizes.tolist(),
            W_h,
            second.weight.clone(),  # on a scaffold composed whenever it is read: here, once for all steps
            second.bias,
            torch.cat([*(2 * head.weight for head in doubled), *(head.weight for head in single)]),
            torch.cat([*(2 * head.bias for head in doubled), *(head.bias for head in single)]),
        )
        return state[packed.unsorted_indices]


class Fused(Function):
    r"""The loop over time of a CfC and its gradient: the four heads are one matrix product and one sigmoid.

    .. math:: h \leftarrow 2\, [(1 - g)\, \sigma(2 f_1) + g\, \sigma(2 f_2)] - 1, \quad
              \text{since } \tanh x = 2 \sigma(2x) - 1

    Records are sorted by length, the longest first, so that the rows of one step are the records still
    running, and a record's row of `h` stays as it is once it has ended.

    Args of forward:
        drive: first linear of the inputs, bias included, (S, K).
        kept: dropout mask behind the second linear, (S, K).
        elapsed: Δt, (S, 1).
        running: how many records each step has; they add up to S.
        W_h: first linear of the state, (K, H).
        W_2, b_2: second linear, (K, K) and (K,).
        W_heads, b_heads: 2 f₁, 2 f₂, b and a on top of each other, (4H, K) and (4H,).

    Gives h after the last step of each record, (B, H).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        drive: Tensor,
        kept: Tensor,
        elapsed: Tensor,
        running: list[int],
        W_h: Tensor,
        W_2: Tensor,
        b_2: Tensor,
        W_heads: Tensor,
        b_heads: Tensor,
    ) -> Tensor:
        hidden = W_h.shape[1]
        h = drive.new_zeros(running[0], hidden)
        before = drive.new_empty(len(drive), hidden)  # h that each step began with
        u, v, z = drive.clone(), torch.empty_like(drive), torch.empty_like(drive)
        gates = drive.new_empty(len(drive), 3 * hidden)  # σ(2 f₁), σ(2 f₂), g
        raw = drive.new_empty(running[0], 4 * hidden)
        end = 0
        for count in running:
            now = slice(end, end := end + count)
            before[now] = h[:count]
            u[now].addmm_(h[:count], W_h.T)
            torch.addmm(b_2, F.silu(u[now]), W_2.T, out=v[now])
            torch.mul(F.silu(v[now]), kept[now], out=z[now])
            step = torch.addmm(b_heads, z[now], W_heads.T, out=raw[:count])
            step[:, 2 * hidden : 3 * hidden].addcmul_(step[:, 3 * hidden :], elapsed[now])
            torch.sigmoid(step[:, : 3 * hidden], out=gates[now])
            torch.lerp(*gates[now].split(hidden, dim=1), out=h[:count]).mul_(2).sub_(1)
        ctx.running = running
        ctx.save_for_backward(before, u, v, z, gates, kept, elapsed, W_h, W_2, W_heads)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, d_state: Tensor) -> tuple[Tensor | None, ...]:
        before, u, v, z, gates, kept, elapsed, W_h, W_2, W_heads = ctx.saved_tensors
        hidden = W_h.shape[1]
        d_mean = 2 * d_state  # h = 2 mean − 1
        W_back = 2 * W_h
        du, dv = torch.empty_like(u), torch.empty_like(v)
        dW_heads, db_heads = (
            torch.zeros_like(W_heads.T),
            W_heads.new_zeros(len(W_heads)),
        )  # transposed: faster
        raw = W_heads.new_empty(ctx.running[0], 4 * hidden)
        ones = W_heads.new_ones(ctx.running[0])
        begin = len(u)
        for count in reversed(ctx.running):
            now = slice(begin - count, begin)
            begin -= count
            s_1, s_2, g = gates[now].split(hidden, dim=1)
            step, d = raw[:count], d_mean[:count]
            d_1, d_2, d_b, d_a = step.split(hidden, dim=1)
            torch.mul(d, g, out=d_2)
            torch.sub(d, d_2, out=d_1)
            torch.sub(s_2, s_1, out=d_b).mul_(d)
            sigmoids = step[:, : 3 * hidden]
            torch.ops.aten.sigmoid_backward(sigmoids, gates[now], grad_input=sigmoids)
            torch.mul(d_b, elapsed[now], out=d_a)
            dW_heads.addmm_(z[now].T, step)
            db_heads.addmv_(step.T, ones[:count])
            dz = (step @ W_heads).mul_(kept[now])
            torch.ops.aten.silu_backward(dz, v[now], grad_input=dv[now])
            torch.ops.aten.silu_backward(dv[now] @ W_2, u[now], grad_input=du[now])
            torch.mm(du[now], W_back, out=d)
        return du, None, None, None, du.T @ before, dv.T @ F.silu(u), dv.sum(0), dW_heads.T, db_heads
