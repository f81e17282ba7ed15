"""HalfCheetah: expert episodes, split by whole episodes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lottalora.data.batches.windows import CONTEXT
from lottalora.data.batches.windows import EpisodeSplits
from lottalora.data.batches.windows import Normalisation
from lottalora.data.batches.windows import Steps
from lottalora.data.sources.episodes import ACTIONS
from lottalora.data.sources.episodes import EXPERT
from lottalora.data.sources.episodes import STATES
from lottalora.data.sources.episodes import Episode
from lottalora.data.sources.episodes import checked
from lottalora.data.sources.episodes import read_d4rl
from lottalora.data.sources.episodes import read_minari
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample

SPLIT_SEED = 0  # of the 90/10 split; never the run's seed


class HalfCheetah:
    """Expert episodes of MuJoCo's HalfCheetah, split 90/10 by whole episodes.

    The held-out episodes serve as validation and as test part: the paper reports the validation error, so the
    score of a row is a validation score. Every step begins one training window, so an epoch is one pass over
    the steps: about 1,400 batches of 64 for 90 episodes of 1,000. The held-out episodes are cut into windows
    that do not overlap, so that each of their steps is scored once, with 0 to 19 steps before it.

    Source: Todorov et al. 2012; Minari, https://minari.farama.org; D4RL, Fu et al. 2020,
    https://arxiv.org/abs/2004.07219

    Args:
        root: folder of the data sets, Minari's MINARI_DATASETS_PATH.
        batch_size: windows.
        source: minari or d4rl.
        id: of the data set, in the words of its source; None is its expert set.
        sample: a small made stand-in in place of the real data.
    """

    # chance: the error of the mean action, on the training part of the local TQC expert's episodes
    spec = DataSpec(
        in_shape=(CONTEXT, STATES), out_dim=ACTIONS, metric="mse", higher_is_better=False, chance=0.6155
    )
    train_examples = 90_000

    def __init__(
        self,
        *,
        root: str,
        batch_size: int,
        source: str = "minari",
        id: str | None = None,
        sample: bool = False,
    ) -> None:
        if source not in EXPERT:
            raise ValueError(f"Unknown data.source {source!r}. Known: {', '.join(EXPERT)}.")
        self.root = Path(root)
        self.batch_size = batch_size
        self.source = source
        self.id = id or EXPERT[source]
        self.sample = checked_sample(sample)

    def read(self) -> EpisodeSplits:
        """The parts. Nothing is read, looked for or downloaded before this call."""
        episodes = made_episodes() if self.sample else self._real()
        train, held_out = split(checked(episodes, self.id))
        states = np.concatenate([episode.states for episode in train])
        normalisation = Normalisation(
            mean=torch.from_numpy(states.mean(0)), std=torch.from_numpy(states.std(0) + 1e-6)
        )
        return EpisodeSplits(
            train=Steps.of(train, normalisation),
            held_out=Steps.of(held_out, normalisation),
            normalisation=normalisation,
            batch_size=self.batch_size,
        )

    def _real(self) -> list[Episode]:
        return read_minari(self.root, self.id) if self.source == "minari" else read_d4rl(self.root, self.id)


def split(episodes: Sequence[Episode]) -> tuple[list[Episode], list[Episode]]:
    """Nine tenths and one tenth of the episodes, drawn from NumPy's frozen legacy stream."""
    order = np.random.RandomState(SPLIT_SEED).permutation(len(episodes))
    held_out = max(1, len(episodes) // 10)
    train, rest = sorted(order[held_out:]), sorted(order[:held_out])
    return [episodes[i] for i in train], [episodes[i] for i in rest]


def made_episodes() -> list[Episode]:
    """The stand-in: 10 episodes of 24 steps whose actions are a fixed function of the state."""
    random = np.random.RandomState(0)
    policy = random.standard_normal((STATES, ACTIONS)) / np.sqrt(STATES)
    episodes = []
    for _ in range(10):
        states = random.standard_normal((24, STATES)).cumsum(0) / 5
        actions = np.tanh(2 * states @ policy)
        rewards = 12 * actions[:, 0]
        episodes.append(Episode(*(part.astype(np.float32) for part in (states, actions, rewards))))
    return episodes
