"""HalfCheetah episodes: read through Minari or `datasets`, held in memory, cut into windows of K steps.

Letters: N windows, K steps of each, S steps in all.
"""

import hashlib
import os
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottalora.data.order import Order
from lottalora.data.spec import DataSpec
from lottalora.data.spec import checked_sample
from lottalora.errors import last_line
from lottalora.errors import nearest_first
from lottalora.models.decision_transformer import LONGEST
from lottalora.models.decision_transformer import Windows

CONTEXT = 20  # K, steps
STATES, ACTIONS = 17, 6
RETURN_SCALE = 6000.0  # the paper: returns-to-go are divided by it
SPLIT_SEED = 0  # of the 90/10 split; never the run's seed
EVALUATION_BATCH = 500  # windows; the score does not depend on it
EXPERT = {"minari": "mujoco/halfcheetah/expert-v0", "d4rl": "halfcheetah-expert-v2"}
PUBLIC = {  # names that are offered where the network does not answer
    "minari": [f"mujoco/halfcheetah/{level}-v0" for level in ("expert", "medium", "simple")],
    "d4rl": [f"halfcheetah-{level}-v2" for level in ("expert", "medium", "medium-replay")],
}
D4RL_REPOSITORY = "edbeeching/decision_transformer_gym_replay"


@dataclass(frozen=True)
class Episode:
    """One episode of L steps: states (L, 17), actions (L, 6), rewards (L,), as float32."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """What a network sees: (state − mean) / std, and returns divided by `return_scale`."""

    mean: Tensor  # (17,)
    std: Tensor  # (17,)
    return_scale: float = RETURN_SCALE


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

    def read(self) -> "EpisodeSplits":
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


def checked(episodes: list[Episode], name: str) -> list[Episode]:
    """The episodes, if a network of this shape can learn from them."""
    episodes = [episode for episode in episodes if len(episode.rewards)]
    if len(episodes) < 2:
        raise ValueError(
            f"Data set {name!r} has {len(episodes)} episodes with steps; 2 or more are needed, "
            "one to train on and one to hold out. Delete it and download it anew, or choose another data.id."
        )
    for number, episode in enumerate(episodes):
        length = len(episode.rewards)
        shapes = tuple(episode.states.shape), tuple(episode.actions.shape)
        if shapes != ((length, STATES), (length, ACTIONS)) or length > LONGEST:
            raise ValueError(
                f"Episode {number} of data set {name!r} has states {shapes[0]}, actions {shapes[1]} and "
                f"{length} rewards; HalfCheetah has {STATES} and {ACTIONS} a step, "
                f"in {LONGEST} steps or fewer."
            )
        if not all(np.isfinite(part).all() for part in (episode.states, episode.actions, episode.rewards)):
            raise ValueError(f"Episode {number} of data set {name!r} holds values that are not numbers.")
    return episodes


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


class WindowBatches:
    """Batches of windows and the actions to be said; the last, smaller batch is not dropped.

    Args:
        steps: what the windows are cut from.
        first: the step that each window begins with.
        normalisation: of states and returns, for whoever meets the environment itself.
        batch_size: windows.
        seed: of the order; None keeps the order of the data set.
    """

    def __init__(
        self,
        steps: Steps,
        first: Tensor,
        normalisation: Normalisation,
        *,
        batch_size: int,
        seed: int | None = None,
    ) -> None:
        self.steps = steps
        self.first = first
        self.normalisation = normalisation
        self.batch_size = batch_size
        self.sampler = Order(len(first), seed)
        self.batch_sampler = None  # Lightning reads this of whatever has a sampler

    def __len__(self) -> int:
        return -(-len(self.first) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Windows, Tensor]]:
        for index in self.sampler.index().split(self.batch_size):
            windows = self.steps.windows(self.first[index])
            yield windows, windows.actions


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
        digest = hashlib.sha256()
        for part in (self.train, self.held_out):
            digest.update(str(tuple(part.table.shape)).encode())
            digest.update(part.table.contiguous().numpy())
        return digest.hexdigest()


def read_minari(root: Path, name: str) -> list[Episode]:
    """The episodes of a Minari data set below `root`, downloaded if it is not there."""
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        import h5py  # noqa: F401  (Minari reads its files with it)
        import minari
    except ImportError as error:
        raise ValueError(
            f"Minari data sets need the packages minari and h5py ({error}). "
            "Type: pip install minari h5py; or data.source=d4rl, or data.sample=true."
        ) from error
    folder = root / name
    if not (folder / "data").is_dir():
        download_minari(root, name)
    try:
        stored = minari.load_dataset(name)
        return [
            Episode(
                np.asarray(episode.observations[:-1], dtype=np.float32),
                np.asarray(episode.actions, dtype=np.float32),
                np.asarray(episode.rewards, dtype=np.float32),
            )
            for episode in stored.iterate_episodes()
        ]
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{folder} cannot be read ({last_line(error)}). "
            "Delete the folder and run again to download it anew."
        ) from error


def download_minari(root: Path, name: str) -> None:
    import minari

    try:
        known = list(minari.list_remote_datasets(latest_version=False))
    except Exception:  # whatever a client of a server raises that does not answer
        known = []
    try:
        if known and name not in known:
            raise ValueError("no public data set of that id")
        minari.download_dataset(name)
    except Exception as error:
        offered = {*PUBLIC["minari"], *known, *local_ids(root)}
        near = [each for each in nearest_first(name, offered) if each != name][:3]
        raise FileNotFoundError(
            f"Minari data set {name!r} is not at {root / name} "
            f"(looked for data/main_data.hdf5) and could not "
            f"be downloaded ({last_line(error)}). Nearest: {', '.join(near)}. Type data.id=ID, "
            "or name the folder above halfcheetah/ with paths.data=FOLDER or LOTTALORA_DATA; "
            "data.sample=true needs no data."
        ) from error


def local_ids(root: Path) -> list[str]:
    """The ids of the Minari data sets below `root`."""
    return [path.parent.parent.relative_to(root).as_posix() for path in root.glob("**/data/metadata.json")]


def read_d4rl(root: Path, name: str) -> list[Episode]:
    """The episodes of a D4RL data set as Hugging Face keeps it, one row an episode; kept below `root`."""
    from datasets import load_dataset

    try:
        table = load_dataset(
            D4RL_REPOSITORY, name, split="train", cache_dir=str(root), revision="refs/convert/parquet"
        )
    except Exception as error:  # whatever a client of a server raises that does not answer
        raise FileNotFoundError(
            f"D4RL data set {name!r} is not below {root} and could not be downloaded from {D4RL_REPOSITORY} "
            f"({last_line(error)}). Nearest: {', '.join(nearest_first(name, PUBLIC['d4rl'])[:3])}. "
            "Type data.id=ID, or data.source=minari; data.sample=true needs no data."
        ) from error
    return d4rl_episodes(table)


def d4rl_episodes(table: Sequence[dict]) -> list[Episode]:
    columns = ("observations", "actions", "rewards")
    return [Episode(*(np.asarray(row[column], dtype=np.float32) for column in columns)) for row in table]


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
