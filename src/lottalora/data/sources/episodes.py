"""HalfCheetah episodes as Minari or `datasets` keeps them."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lottalora.downloads import hub
from lottalora.downloads import reach
from lottalora.messages import last_line
from lottalora.messages import nearest_first

STATES, ACTIONS = 17, 6
LONGEST = 1000  # steps of an episode
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


def checked(episodes: list[Episode], name: str) -> list[Episode]:
    """Return the episodes; raise ValueError if they are too few, too long or of other shapes."""
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
    """Download a Minari data set; raise FileNotFoundError with the nearest ids."""
    import minari

    known = []
    try:
        reach(hub())  # without a network Minari's client would try for 49 s and print 50 lines
        with contextlib.suppress(Exception):  # whatever a client of a server raises that does not answer
            known = list(minari.list_remote_datasets(latest_version=False))
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
    """Convert D4RL's table, one row per episode."""
    columns = ("observations", "actions", "rewards")
    return [Episode(*(np.asarray(row[column], dtype=np.float32) for column in columns)) for row in table]
