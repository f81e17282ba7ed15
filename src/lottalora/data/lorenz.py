"""The Lorenz system: windows of a chaotic trajectory, and where it is a little later. Made here, no download.

Letters: N windows, K states of a window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lottalora.data.batches import order
from lottalora.data.batches.batch import Sequences
from lottalora.data.fingerprint import fingerprint
from lottalora.data.fingerprint import with_shapes
from lottalora.data.spec import DataSpec

SIGMA, RHO, BETA = 10.0, 28.0, 8.0 / 3.0  # Lorenz 1963
STEP = 0.005  # of the integration, in units of time; the system's Lyapunov time is 1.1
SKIPPED = 4  # steps of the integration from one state of a window to the next: 0.02
CONTEXT = 16  # K
HORIZON = 25  # states ahead that are asked for: 0.5 units of time
TRANSIENT = 2000  # steps until a trajectory is on the attractor
EVALUATION_BATCH = 1000  # windows; the score does not depend on it
State = tuple[float, float, float]
# Part → its start and its number of windows. Each part is a trajectory of its own, and no seed moves it.
PARTS: dict[str, tuple[State, int]] = {
    "train": ((1.0, 1.0, 1.0), 4000),
    "validation": ((-5.0, 3.0, 20.0), 1000),
    "test": ((8.0, -2.0, 30.0), 2000),
}


class Lorenz:
    r"""Forecast the Lorenz system half a unit of time ahead from its last 16 states.

    .. math:: \dot x = \sigma (y - x), \quad \dot y = x (\rho - z) - y, \quad \dot z = x y - \beta z

    States are normalised by mean and standard deviation of the training part, so that a mean squared error is
    a share of the variance, and guessing the mean scores 1.

    Source: E. N. Lorenz, Deterministic Nonperiodic Flow, 1963. The paper's text on it names no protocol: this
    one is ours.

    Args:
        batch_size: windows.
        sequences: true: a window is a sequence of K inputs, for CfC; false: one input of K states.
    """

    sample = False
    train_examples = PARTS["train"][1]

    def __init__(self, *, batch_size: int, sequences: bool = False) -> None:
        self.batch_size = batch_size
        self.sequences = sequences

    @property
    def spec(self) -> DataSpec:
        in_shape = (3,) if self.sequences else (CONTEXT, 3)
        return DataSpec(in_shape=in_shape, out_dim=3, metric="nmse", higher_is_better=False, chance=1.0)

    def read(self) -> "LorenzSplits":
        paths = {name: trajectory(start, windows) for name, (start, windows) in PARTS.items()}
        mean, std = paths["train"].mean(0), paths["train"].std(0)
        parts = {name: Windows.of(((path - mean) / std).float()) for name, path in paths.items()}
        return LorenzSplits(**parts, batch_size=self.batch_size, sequences=self.sequences)


def trajectory(start: State, windows: int) -> Tensor:
    """States every 0.02 units of time for so many windows, (states, 3) in float64.

    By the classical Runge-Kutta method in Python's own floats, which round alike on every machine. In a
    chaotic system the last bit of another library's product is another trajectory.
    """
    state, path = start, []
    for _ in range(TRANSIENT):
        state = runge_kutta(state, STEP)
    for _ in range(windows + CONTEXT - 1 + HORIZON):
        path.append(state)
        for _ in range(SKIPPED):
            state = runge_kutta(state, STEP)
    return torch.tensor(path, dtype=torch.float64)


def velocity(state: State) -> State:
    """The right-hand side of the equation."""
    x, y, z = state
    return SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z


def runge_kutta(state: State, step: float) -> State:
    """One step of the classical method of order four."""
    k1 = velocity(state)
    k2 = velocity(moved(state, k1, step / 2))
    k3 = velocity(moved(state, k2, step / 2))
    k4 = velocity(moved(state, k3, step))
    x, y, z = (
        s + step / 6 * (a + 2 * b + 2 * c + d) for s, a, b, c, d in zip(state, k1, k2, k3, k4, strict=True)
    )
    return x, y, z


def moved(state: State, velocity: State, step: float) -> State:
    """The state moved along a velocity."""
    x, y, z = (s + step * v for s, v in zip(state, velocity, strict=True))
    return x, y, z


@dataclass(frozen=True)
class Windows:
    """One part: the windows (N, K, 3) and the state that each is followed by, (N, 3)."""

    inputs: Tensor
    targets: Tensor

    @classmethod
    def of(cls, path: Tensor) -> "Windows":
        """All windows of a trajectory, (states, 3)."""
        count = len(path) - (CONTEXT - 1) - HORIZON
        inputs = path.unfold(0, CONTEXT, 1)[:count].transpose(1, 2).contiguous()
        return cls(inputs, path[CONTEXT - 1 + HORIZON :].clone())


class Batches(order.Batches):
    """Batches of windows and the states that follow, as vectors or as sequences.

    Args:
        windows: what is cut into batches.
        sequences: whether as `Sequences`.
        batch_size: windows.
        seed: of the order; None keeps the order of time.
    """

    def __init__(
        self, windows: Windows, *, sequences: bool, batch_size: int, seed: int | None = None
    ) -> None:
        super().__init__(len(windows.targets), batch_size=batch_size, seed=seed)
        self.windows = windows
        self.sequences = sequences

    def batch(self, number: int, index: Tensor) -> tuple[Tensor | Sequences, Tensor]:
        inputs, targets = self.windows.inputs[index], self.windows.targets[index]
        if not self.sequences:
            return inputs, targets
        elapsed = torch.ones(len(index), CONTEXT)
        return Sequences(inputs, elapsed, torch.full((len(index),), CONTEXT)), targets


@dataclass(frozen=True, kw_only=True)
class LorenzSplits:
    """The three parts of the data set."""

    train: Windows
    validation: Windows
    test: Windows
    batch_size: int
    sequences: bool

    def train_batches(self, seed: int) -> Batches:
        return Batches(self.train, sequences=self.sequences, batch_size=self.batch_size, seed=seed)

    def validation_batches(self) -> Batches:
        return Batches(self.validation, sequences=self.sequences, batch_size=EVALUATION_BATCH)

    def test_batches(self) -> Batches:
        return Batches(self.test, sequences=self.sequences, batch_size=EVALUATION_BATCH)

    def fingerprint(self) -> str:
        parts = (self.train, self.validation, self.test)
        return fingerprint(with_shapes([each for part in parts for each in (part.inputs, part.targets)]))
