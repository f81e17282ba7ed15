"""A control beside sweeps=lorenz: an echo state network, and the stability of frozen recurrent dynamics.

    python scripts/control_lorenz.py

The network's recurrent matrix is random, scaled to a spectral radius ρ, and never trained; its read-out is
ridge regression from the state after a window's last step. Penalty and radius are chosen on the validation
part; the test part scores what was chosen.

The largest Lyapunov exponent is that of the driven state: two states a hair apart follow the same test
trajectory, and the mean growth of their distance a step is measured (Benettin's method). Below 0 the network
forgets where it began, which is the echo state property on these data. It is given for the echo state network
and for the untrained CfC on its frozen scaffold, beside σ₁ of the matrix that acts on the state.
"""

import math
from collections.abc import Callable

import numpy as np
import torch

from lottalora.data.lorenz import Lorenz
from lottalora.data.lorenz import LorenzSplits
from lottalora.data.lorenz import Windows
from lottalora.models.cfc import CfC
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap

UNITS = 200  # of the reservoir
RADII = (0.5, 0.9, 1.2, 2.0)  # spectral radius ρ
SCALES = (1.0, 2.0, 4.0, 8.0)  # of CfC's scaffold, times 1/√fan_in
PENALTIES = 10.0 ** np.arange(-8, 1)
SEED = 42
APART = 1e-8  # of the two states
SETTLED = 100  # steps before the growth is measured


def main() -> None:
    splits = Lorenz(batch_size=128).read()
    scores = []  # of each radius: on the validation part, on the test part, ρ
    drive = splits.test.inputs[:, -1].double().numpy()  # (N, 3), the test trajectory state by state
    for radius in RADII:
        W, W_in = reservoir(radius)

        def step(h: np.ndarray, x: np.ndarray, W: np.ndarray = W, W_in: np.ndarray = W_in) -> np.ndarray:
            return np.tanh(h @ W.T + x @ W_in.T)

        exponent = lyapunov(step, np.zeros(UNITS), drive)
        scores.append((*ridge_scores(splits, lambda windows, step=step: last_states(step, windows)), radius))
        print(
            f"echo state network, ρ = {radius}: validation error / variance {scores[-1][0]:.5f}, "
            f"σ₁ {np.linalg.norm(W, 2):.2f}, exponent {exponent:+.3f} a step"
        )
    _, test, radius = min(scores)
    print(f"echo state network, chosen by validation: ρ = {radius}, test error / variance {test:.5f}")
    for scale in SCALES:
        net = frozen_cfc(scale)
        exponent = lyapunov(cfc_step(net), np.zeros(net.cell.hidden_size), drive)
        sigma = np.linalg.norm(net.cell.backbone[0].W_seed[:, 3:].double().numpy(), 2)
        print(
            f"CfC on its frozen scaffold, {scale:g}/√fan_in: σ₁ {sigma:.2f}, exponent {exponent:+.3f} a step"
        )


def reservoir(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The recurrent matrix with this spectral radius, and the input's."""
    random = np.random.default_rng(SEED)
    W = random.standard_normal((UNITS, UNITS))
    W *= radius / np.abs(np.linalg.eigvals(W)).max()
    return W, 0.5 * random.standard_normal((UNITS, 3))


def last_states(step: Callable, windows: Windows) -> np.ndarray:
    """The state after each window's last step, (N, UNITS)."""
    h = np.zeros((len(windows.inputs), UNITS))
    for x in windows.inputs.double().numpy().transpose(1, 0, 2):
        h = step(h, x)
    return h


def ridge_scores(splits: LorenzSplits, states: Callable[[Windows], np.ndarray]) -> tuple[float, float]:
    """Validation and test error of a ridge read-out; the first chooses its penalty."""
    X, V, T = (with_ones(states(part)) for part in (splits.train, splits.validation, splits.test))
    y, v, t = (part.targets.double().numpy() for part in (splits.train, splits.validation, splits.test))
    gram, moment = X.T @ X, X.T @ y
    fits = [np.linalg.solve(gram + penalty * len(X) * np.eye(len(gram)), moment) for penalty in PENALTIES]
    validation, best = min((((V @ fit - v) ** 2).mean(), number) for number, fit in enumerate(fits))
    return float(validation), float(((T @ fits[best] - t) ** 2).mean())


def with_ones(X: np.ndarray) -> np.ndarray:
    """The states and a column of ones."""
    return np.hstack([X, np.ones((len(X), 1))])


def frozen_cfc(scale: float) -> CfC:
    """The CfC of sweeps=lorenz before training: B = 0, so that its matrices are W_seed."""
    torch.manual_seed(SEED)
    net = CfC((3,), 3, hidden=32, backbone=8, dropout=0.0)
    wrap(net, Scaffold(rank=1, seed=SEED, parameters={"std": scale}), keep=["head"])
    return net.double().eval()


def cfc_step(net: CfC) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """One step of the cell in float64."""

    @torch.no_grad()
    def step(h: np.ndarray, x: np.ndarray) -> np.ndarray:
        state, _ = net.cell(torch.from_numpy(x)[None], torch.from_numpy(h)[None], 1.0)
        return state[0].numpy()

    return step


def lyapunov(step: Callable, h: np.ndarray, drive: np.ndarray) -> float:
    """The mean of ln of the growth of a small distance, a step; −∞ where it falls to nothing."""
    away = np.random.default_rng(SEED).standard_normal(h.shape)
    other, growth = h + APART * away / np.linalg.norm(away), []
    for number, x in enumerate(drive):
        h, other = step(h, x), step(other, x)
        distance = np.linalg.norm(other - h)
        if distance == 0:
            return -math.inf
        if number >= SETTLED:
            growth.append(math.log(distance / APART))
        other = h + (other - h) * (APART / distance)
    return float(np.mean(growth))


if __name__ == "__main__":
    main()
