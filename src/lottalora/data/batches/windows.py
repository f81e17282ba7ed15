"""Episodes held in memory step by step, cut into windows of K steps.

Letters: N windows, K steps of each, S steps in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.batch import Windows
from lottalora.data.fingerprint import fingerprint
from lottalora.data.fingerprint import with_shapes
from lottalora.data.sources.episodes import ACTIONS
from lottalora.data.sources.episodes import STATES
from lottalora.data.sources.episodes import Episode

CONTEXT = 20  # K, steps
RETURN_SCALE = 6000.0  # the paper: returns-to-go are divided by it
EVALUATION_BATCH = 500  # windows; the score does not depend on it


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a network sees: (state − mean) / std, and returns divided by `return_scale`."""

    mean: Tensor  # (17,)
    std: Tensor  # (17,)
    return_scale: float = RETURN_SCALE


@dataclass(frozen=True)
class Steps:
    """All steps of one part, one after the other, and a last row of zeros that fills up.

    Args:
        table: return-to-go, state, action and number of each step, (S + 1, 1 + 17 + 6 + 1).
        left: steps from each one to the end of its episode, itself among them, (S,).
    """

    table: Tensor
    left: Tensor

    @classmethod
    def of(cls, episodes: Sequence[Episode], normalisation: Normalisation) -> "Steps":
        states = torch.from_numpy(np.concatenate([episode.states for episode in episodes]))
        actions = torch.from_numpy(np.concatenate([episode.actions for episode in episodes]))
        returns = torch.from_numpy(np.concatenate([returns_to_go(episode.rewards) for episode in episodes]))
        lengths = [len(episode.rewards) for episode in episodes]
        number = torch.cat([torch.arange(length) for length in lengths])
        columns = (
            returns[:, None] / normalisation.return_scale,
            (states - normalisation.mean) / normalisation.std,
            actions,
            number[:, None],
        )
        table = torch.cat([column.float() for column in columns], dim=1)
        left = torch.cat([torch.arange(length, 0, -1) for length in lengths])
        return cls(torch.cat([table, table.new_zeros(1, table.shape[1])]), left)

    def windows(self, first: Tensor) -> Windows:
        """The K steps from each of `first`, (N,); where the episode ends earlier, filled up on the left."""
        lacking = (CONTEXT - self.left[first]).clamp(min=0)  # (N,)
        place = torch.arange(CONTEXT) - lacking[:, None]  # (N, K), below 0 where there is no step
        rows = self.table[torch.where(place < 0, -1, first[:, None] + place)]  # (N, K, 25)
        returns, states, actions, number = rows.split([1, STATES, ACTIONS, 1], dim=2)
        return Windows(returns, states, actions, number.squeeze(2).long(), place >= 0)


def returns_to_go(rewards: np.ndarray) -> np.ndarray:
    """The sum of the rewards from each step to the end, (L,)."""
    return np.cumsum(rewards[::-1], dtype=np.float64)[::-1].copy()


class WindowBatches(order.Batches):
    """Batches of windows and the actions to be predicted.

    Args:
        steps: what the windows are cut from.
        starts: the step that each window begins with.
        normalisation: of states and returns, for whoever meets the environment itself.
        batch_size: windows.
        seed: of the order; None keeps the order of the data set.
    """

    def __init__(
        self,
        steps: Steps,
        starts: Tensor,
        normalisation: Normalisation,
        *,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        super().__init__(len(starts), batch_size=batch_size, seed=seed)
        self.steps = steps
        self.starts = starts
        self.normalisation = normalisation

    def batch(self, number: int, index: Tensor) -> tuple[Windows, Tensor]:
        windows = self.steps.windows(self.starts[index])
        return windows, windows.actions


@dataclass(frozen=True, kw_only=True)
class EpisodeSplits:
    """Training and held-out episodes; the latter are validated and tested on alike, as in the paper."""

    train: Steps
    held_out: Steps
    normalisation: Normalisation
    batch_size: int

    def train_batches(self, seed: int) -> WindowBatches:
        every = torch.arange(len(self.train.left))
        return WindowBatches(self.train, every, self.normalisation, batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> WindowBatches:
        number = self.held_out.table[:-1, -1]
        first = torch.nonzero(number % CONTEXT == 0).squeeze(1)  # of windows that do not overlap
        return WindowBatches(self.held_out, first, self.normalisation, batch_size=EVALUATION_BATCH)

    def test_batches(self) -> WindowBatches:
        return self.validation_batches()

    def fingerprint(self) -> str:
        """SHA-256 over what the two parts hold: data, split and normalisation in one number."""
        return fingerprint(with_shapes([self.train.table, self.held_out.table]))
