"""A Decision Transformer in its environment: many episodes at once, one forward pass a step.

Letters: E episodes side by side, K steps of context.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from lottalora.data.batches.batch import Windows
from lottalora.data.batches.windows import Normalisation
from lottalora.data.sources.episodes import LONGEST

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

ENVIRONMENTS = ("HalfCheetah-v4", "HalfCheetah-v5")
RANDOM, EXPERT = -280.178953, 12135.0  # returns of D4RL's random and expert policy; Fu et al. 2020
FIRST_SEED = 0  # of the environments: 0, 1, …; never the run's seed, so that all runs meet the same starts
log = logging.getLogger(__name__)


def check(environment: str, episodes: int) -> None:
    """Raise before training if the environment could not be played after it."""
    if type(episodes) is not int or episodes < 0:
        raise ValueError(f"task.episodes must be a whole number, 0 or more, got {episodes!r}.")
    if environment not in ENVIRONMENTS:
        raise ValueError(f"Unknown task.environment {environment!r}. Known: {', '.join(ENVIRONMENTS)}.")
    if episodes == 0:
        return
    try:
        with worlds_of(environment, 1) as worlds:
            worlds.reset()
    except Exception as error:  # whatever a package raises that is missing or does not fit
        raise ValueError(
            f"{environment} cannot be played here ({error}). Type: pip install 'gymnasium[mujoco]'; "
            "or task.episodes=0 to leave the online scores out."
        ) from error


def d4rl_score(returns: np.ndarray) -> np.ndarray:
    """Normalise a return: 0 is D4RL's random policy, 100 its expert."""
    return 100 * (returns - RANDOM) / (EXPERT - RANDOM)


@torch.no_grad()
def play(
    net: nn.Module,
    normalisation: Normalisation,
    *,
    environment: str,
    episodes: int,
    context: int,
    target_return: float,
    steps: int = LONGEST,
) -> np.ndarray:
    """The return of each of E episodes, (E,), of a policy that is asked for `target_return`."""
    was_training = net.training
    net.eval()
    memory = Memory(net, normalisation, episodes=episodes, context=context, target_return=target_return)
    earned = np.zeros(episodes)
    with worlds_of(environment, episodes) as worlds:
        observed, _ = worlds.reset(seed=[FIRST_SEED + number for number in range(episodes)])
        for _ in range(steps):  # HalfCheetah never ends before its 1,000 steps
            observed, rewards, *_ = worlds.step(memory.act(observed))
            memory.pay(rewards)
            earned += rewards
    net.train(was_training)
    return earned


class Memory:
    """The last K steps of E episodes, and each one's return-to-go.

    Args:
        net: the policy, in evaluation mode.
        normalisation: of the training part.
        episodes: E.
        context: K, steps.
        target_return: asked for at the first step; what is earned is taken off.
    """

    def __init__(
        self,
        net: nn.Module,
        normalisation: Normalisation,
        *,
        episodes: int,
        context: int,
        target_return: float,
    ) -> None:
        self.net, self.normalisation = net, normalisation
        self.device = next(net.parameters()).device
        self.return_to_go = np.full(episodes, float(target_return))
        self.step = 0
        states, actions = len(normalisation.mean), net.action.out_features
        empty = (torch.zeros(episodes, context, width) for width in (1, states, actions))
        numbers = torch.zeros(episodes, context, dtype=torch.long)
        self.seen = Windows(*empty, numbers, numbers.bool())

    def act(self, observed: np.ndarray) -> np.ndarray:
        """The actions (E, actions) for the states observed, (E, states)."""
        normalisation = self.normalisation
        newest = Windows(
            torch.from_numpy(self.return_to_go / normalisation.return_scale).float()[:, None],
            (torch.from_numpy(observed).float() - normalisation.mean) / normalisation.std,
            torch.zeros_like(self.seen.actions[:, 0]),  # not yet known, and not seen by its own step
            torch.full_like(self.seen.steps[:, 0], self.step),
            torch.ones_like(self.seen.mask[:, 0]),
        )
        pairs = zip(self.seen, newest, strict=True)
        self.seen = Windows(*(torch.cat([old[:, 1:], new[:, None]], dim=1) for old, new in pairs))
        actions = self.net(Windows(*(part.to(self.device) for part in self.seen)))[:, -1].cpu()
        self.seen.actions[:, -1] = actions
        self.step += 1
        return actions.numpy()

    def pay(self, rewards: np.ndarray) -> None:
        self.return_to_go -= rewards


@contextmanager
def worlds_of(environment: str, episodes: int) -> Iterator[VectorEnv]:
    """Environments side by side in this process."""
    import gymnasium

    with warnings.catch_warnings(), quiet_mujoco():
        warnings.filterwarnings("ignore", message=".*out of date")  # the paper's version is meant
        worlds = gymnasium.make_vec(environment, num_envs=episodes, vectorization_mode="sync")
        try:
            yield worlds
        finally:
            worlds.close()


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """MuJoCo's warnings go neither to the terminal nor to MUJOCO_LOG.TXT in the working directory."""
    import mujoco

    if not hasattr(mujoco, "MjLogConfig"):  # before MuJoCo 4
        before = mujoco.get_mju_user_warning()
        mujoco.set_mju_user_warning(lambda text: log.debug("MuJoCo: %s", text))
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(before)
        return
    before, quiet = mujoco.MjLogConfig.get(), mujoco.MjLogConfig.get()
    quiet.logto_file = quiet.logto_console = False
    quiet.set()
    try:
        yield
    finally:
        before.set()
