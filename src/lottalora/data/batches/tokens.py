"""Blocks of a stream of tokens, cut where it lies.

Letters: N blocks of a batch, T = 128 tokens of each.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.packed import Packed
from lottalora.data.fingerprint import fingerprint

BLOCK = 128  # tokens; the paper's
EVALUATION_BATCH = 32  # blocks; the score does not depend on it


class TokenBatches(order.Batches):
    """Batches of blocks and the tokens that follow each token of them.

    A block's last target is the next block's first token, so each token but the very first is a target once.
    With a seed the order is a function of (seed, epoch), and what does not fill a block is left out; without,
    it is that of the text, and the rest makes a last, shorter batch.

    Args:
        tokens: the stream.
        batch_size: blocks.
        seed: of the order, or None.
        text_bytes: of the text that the stream is made from.
    """

    def __init__(
        self, tokens: np.ndarray, *, batch_size: int, seed: int | None = None, text_bytes: int = 0
    ) -> None:
        blocks, rest = divmod(len(tokens) - 1, BLOCK)
        super().__init__(blocks, batch_size=batch_size, seed=seed)
        self.tokens = tokens
        self.text_bytes = text_bytes
        self.rest = rest if seed is None else 0
        self.scored = blocks * BLOCK + self.rest  # targets
        self.end = torch.tensor([blocks * BLOCK])  # behind the last whole block

    def __len__(self) -> int:
        return super().__len__() + bool(self.rest)

    def index(self) -> list[Tensor]:
        whole = super().index() if self.sampler.count else ()
        return [*whole, *([torch.empty(0, dtype=torch.int64)] if self.rest else [])]

    def batch(self, number: int, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.cut(index * BLOCK, BLOCK) if len(index) else self.cut(self.end, self.rest)

    def cut(self, first: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Tokens and targets, (N, length) each, from these places on, (N,)."""
        places = first[:, None] + torch.arange(length + 1)
        tokens = torch.from_numpy(self.tokens[places.numpy()].astype(np.int64))
        return tokens[:, :-1], tokens[:, 1:]


@dataclass(frozen=True, kw_only=True)
class TokenSplits:
    """Train, validation and test part of a text.

    Args:
        train, validation, test: the parts.
        batch_size: blocks.
        first: how many tokens of train are used; None for all.

    Raises:
        ValueError: train does not fill a block, or has fewer tokens than `first`.
    """

    train: Packed
    validation: Packed
    test: Packed
    batch_size: int
    first: int | None = None

    def __post_init__(self) -> None:
        count = len(self.train.tokens)
        if count <= BLOCK:
            raise ValueError(
                f"The training part has {count:,} tokens, which do not fill one block of {BLOCK}. Add text."
            )
        if self.first is not None and self.first > count:
            raise ValueError(
                f"data.tokens={self.first} is more than the {count:,} tokens of the training part. "
                "Type fewer, or data.tokens=null for all."
            )

    def train_batches(self, seed: int) -> TokenBatches:
        return TokenBatches(self.train.tokens[: self.first], batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> TokenBatches:
        return self._in_order(self.validation)

    def test_batches(self) -> TokenBatches:
        return self._in_order(self.test)

    def _in_order(self, part: Packed) -> TokenBatches:
        return TokenBatches(part.tokens, batch_size=EVALUATION_BATCH, text_bytes=part.text_bytes)

    def fingerprint(self) -> str:
        """SHA-256 over the tokens of all parts that are used: text, tokenizer and split in one number."""
        parts = (self.train.tokens[: self.first], self.validation.tokens, self.test.tokens)
        return fingerprint(each for tokens in parts for each in (f"{len(tokens)} {tokens.dtype}", tokens))
