"""DistilBERT with a linear read-out, written for speed, and the learned weights that it may start from.

Letters: N texts, T tokens of the longest, d width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.downloads import ensure
from lottalora.models.dropout import Dropout
from lottalora.models.dropout import dropout
from lottalora.models.pretrained import bert_as_distilbert
from lottalora.models.pretrained import fill

if TYPE_CHECKING:
    from lottalora.data.batches.batch import Texts

START = 0.02  # std of weights at their start, as of BERT
ALL = slice(None)
EPSILON = 1e-12  # of LayerNorms, as of BERT
RANDOM_START = "model.size=base starts at random and needs no file."


class DistilBert(nn.Module):
    r"""A post-norm transformer over tokens; a linear head reads the first of them, [CLS].

    .. math:: h \leftarrow \mathrm{LN}(h + \mathrm{attention}(h)), \quad
              h \leftarrow \mathrm{LN}(h + W_2\, \mathrm{GELU}(W_1 h))

    Modules bear the names that transformers' DistilBertModel gives them, so its files load as they are, and
    compute the same. Of the last block only [CLS] is computed, since nothing else is read; the head comes
    right after it: the paper's counts leave no room for the pre_classifier that
    DistilBertForSequenceClassification has in between.

    Args:
        in_shape: (longest text, vocabulary).
        out_dim: number of classes.
        width: d.
        layers: blocks.
        heads: H.
        ffn: width of the hidden layer of each block.
        dropout: probability, of embeddings, each block's second branch and the read-out.
        attention_dropout: probability, of attention's weights.

    Source: Sanh et al. 2019, https://arxiv.org/abs/1910.01108
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        ffn: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.embeddings = Embeddings(*in_shape, width, dropout)
        blocks = [Block(width, heads, ffn, dropout, attention_dropout) for _ in range(layers)]
        self.transformer = nn.ModuleDict({"layer": nn.ModuleList(blocks)})
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(width, out_dim)
        for module in self.modules():
            start(module)

    def forward(self, x: Texts) -> Tensor:
        places = torch.arange(x.tokens.shape[1], device=x.tokens.device)  # (T,)
        mask = (places < x.lengths[:, None])[:, None, None]  # (N, 1, 1, T)
        h = self.embeddings(x.tokens)  # (N, T) → (N, T, d)
        *blocks, last = self.transformer["layer"]
        for block in blocks:
            h = block(h, mask)
        cls = last(h, mask, at=slice(0, 1))[:, 0]  # (N, T, d) → (N, 1, d) → (N, d)
        return self.head(self.dropout(cls))  # (N, out_dim)


class Embeddings(nn.Module):
    """Of words and positions, added and normalised."""

    def __init__(self, longest: int, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width, padding_idx=0)
        self.position_embeddings = nn.Embedding(longest, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)  # (T,)
        h = self.word_embeddings(tokens) + self.position_embeddings(places)
        return self.dropout(self.LayerNorm(h))


class Block(nn.Module):
    """Attention and an MLP, each inside a skip that is normalised after it."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.sa_layer_norm = nn.LayerNorm(width, eps=EPSILON)
        self.ffn = nn.ModuleDict({"lin1": nn.Linear(width, ffn), "lin2": nn.Linear(ffn, width)})
        self.output_layer_norm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor, at: slice = ALL) -> Tensor:
        """Return the outputs for positions `at`; all positions serve as keys and values."""
        h = self.sa_layer_norm(h[:, at] + self.attention(h, mask, at))
        inner = self.ffn["lin2"](F.gelu(self.ffn["lin1"](h)))  # (N, T, d) → (N, T, ffn) → (N, T, d)
        return self.output_layer_norm(h + self.dropout(inner))


class Attention(nn.Module):
    """Softmax attention; what `mask` leaves out is not seen."""

    share_input = (("q_lin", "k_lin", "v_lin"),)  # layers that read one tensor, but for `at`

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.probability = dropout
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(width, width) for _ in range(4))

    def forward(self, h: Tensor, mask: Tensor, at: slice = ALL) -> Tensor:
        """Return the outputs for positions `at`; all positions serve as keys and values."""
        query = h if at == ALL else h[:, at]
        q, k, v = (  # (N, T, d) → (N, H, T, d / H)
            tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.q_lin(query), self.k_lin(h), self.v_lin(h))
        )
        mixed = attend(q, k, v, mask, self.probability if self.training else 0.0)
        return self.out_lin(mixed.transpose(1, 2).flatten(2))  # (N, H, T, d / H) → (N, T, d)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, probability: float) -> Tensor:
    """PyTorch's fused attention, but for dropout on a CPU, which it does not fuse and draws slowly.

    On a CPU in float32 whatever the precision: its backward in bf16 takes 2.7 times as long.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=probability)
    if probability == 0:
        q, k, v = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (q, k, v))
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -torch.inf)  # (N, H, T, T)
    return dropout(scores.softmax(-1), probability) @ v


@torch.no_grad()
def start(module: nn.Module) -> None:
    """As BERT: weights N(0, 0.02²), biases and the row of the padding 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        module.weight.normal_(std=START)
    if isinstance(module, nn.Linear):
        module.bias.zero_()
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        module.weight[module.padding_idx] = 0


def distilbert(
    in_shape: Sequence[int],
    out_dim: int,
    *,
    width: int,
    layers: int,
    heads: int,
    ffn: int,
    dropout: float,
    attention_dropout: float,
    weights: str | None,
    root: str,
    repository: str | None = None,
) -> DistilBert:
    """A DistilBert at its start: random, or with learned weights; the head is random in any case.

    Args:
        in_shape, out_dim, width, layers, heads, ffn, dropout, attention_dropout: as of DistilBert.
        weights: name of a folder with a learned DistilBERT or BERT of this size, or None.
        root: the folder that holds WEIGHTS/model.safetensors, or into which that is downloaded.
        repository: where the hub has it; None: distilbert/WEIGHTS.
    """
    size = {"width": width, "layers": layers, "heads": heads, "ffn": ffn}
    net = DistilBert(in_shape, out_dim, **size, dropout=dropout, attention_dropout=attention_dropout)
    if weights is not None and not net.head.weight.is_meta:  # on the meta device weights have no values
        path = ensure(
            Path(root) / weights / "model.safetensors",
            title=f"The learned {weights}",
            source=f"{repository or f'distilbert/{weights}'}/resolve/main/model.safetensors",
            otherwise=f"; {RANDOM_START}",
        )
        load_learned(net, path)
    return net


def load_learned(net: DistilBert, path: Path) -> None:
    """Fill all but the head from a checkpoint of transformers' DistilBERT, with or without a head, or BERT.

    Raises:
        ValueError: a damaged file, or one of another network.
    """
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except Exception as error:  # safetensors has an error of its own beside OSError
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}). Delete it and run again to download it "
            f"anew; {RANDOM_START}"
        ) from error
    if "embeddings.token_type_embeddings.weight" in state:  # which BERT has and DistilBERT has not
        size = len(net.transformer["layer"]), net.embeddings.position_embeddings.num_embeddings
        fill(net, bert_as_distilbert, state, path.parent, size)
        return
    given = {name.removeprefix("distilbert."): value for name, value in state.items()}
    needed = {name: value for name, value in net.state_dict().items() if not name.startswith("head.")}
    wrong = [name for name in needed if name not in given or given[name].shape != needed[name].shape]
    if wrong or any(name.startswith("transformer.") and name not in needed for name in given):
        example = f"{wrong[0]} is missing or has another shape" if wrong else "it has more blocks"
        raise ValueError(f"{path} holds no weights of this DistilBERT: {example}. {RANDOM_START}")
    net.load_state_dict({name: given[name] for name in needed}, strict=False)
