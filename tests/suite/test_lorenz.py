"""The Lorenz system: its trajectory, its windows, the nets that read them, and the control's exponent."""

import importlib.util
import math

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.integrate import solve_ivp

from lottalora.build import build
from lottalora.data import lorenz
from lottalora.data.lorenz import Lorenz
from tests.suite.conftest import ROOT

# The same on every machine; another value means that rows may not be compared with earlier ones.
FINGERPRINT = "df655ebe19f1"


@pytest.fixture(scope="module")
def splits():
    return Lorenz(batch_size=128).read()


def test_trajectory_is_scipys():
    start, state = (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    for _ in range(400):
        state = lorenz.runge_kutta(state, lorenz.STEP)
    exact = solve_ivp(lambda _, s: lorenz.velocity(s), (0, 2), start, method="DOP853", rtol=1e-11, atol=1e-11)
    assert state == pytest.approx(exact.y[:, -1], abs=1e-4)


def test_each_window_is_followed_by_the_state_half_a_unit_of_time_later(splits):
    windows = splits.test
    assert windows.inputs.shape == (2000, 16, 3) and windows.targets.shape == (2000, 3)
    place = 100  # the state that is asked for ends a later window
    assert torch.equal(windows.targets[place], windows.inputs[place + lorenz.HORIZON, -1])
    assert lorenz.HORIZON * lorenz.SKIPPED * lorenz.STEP == pytest.approx(0.5)


def test_data_are_the_same_on_every_machine(splits):
    assert splits.fingerprint()[:12] == FINGERPRINT


def test_guessing_the_mean_scores_one(splits):
    assert float(splits.train.targets.square().mean()) == pytest.approx(
        Lorenz(batch_size=1).spec.chance, rel=0.02
    )


def test_sequences_hold_the_states_of_the_vectors(splits):
    (x, y), (s, z) = (
        next(iter(Lorenz(batch_size=8, sequences=way).read().test_batches())) for way in (False, True)
    )
    assert torch.equal(x, s.inputs) and torch.equal(y, z)
    assert s.lengths.unique().tolist() == [lorenz.CONTEXT]


@pytest.mark.parametrize("pair", ["model=mlp model.size=tiny", "model=cfc model.size=0.125x"])
def test_net_answers_with_three_numbers_and_its_error_has_a_gradient(composed, pair):
    cfg = composed(*pair.split(), "data=lorenz", "rank=1")
    data = instantiate(cfg.data)
    net, _ = build(cfg, data.spec)
    task = instantiate(cfg.task, net, data.spec, instantiate(cfg.optimizer), instantiate(cfg.schedule))
    step = task.step(next(iter(data.read().train_batches(seed=0))))
    step.loss.backward()
    assert step.prediction.shape == step.target.shape == (128, 3)
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert not any(module.p for module in net.modules() if isinstance(module, torch.nn.Dropout))


def test_exponent_of_a_linear_map_is_the_logarithm_of_its_factor():
    spec = importlib.util.spec_from_file_location("control", ROOT / "scripts" / "control_lorenz.py")
    control = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(control)
    drive = np.zeros((200, 3))
    for factor in (0.5, 1.25):
        found = control.lyapunov(lambda h, _, factor=factor: factor * h, np.zeros(4), drive)
        assert found == pytest.approx(math.log(factor), abs=1e-6)
    assert control.lyapunov(lambda h, _: 0 * h, np.zeros(4), drive) == -math.inf
