"""The Decision Transformer: causal, blind to what fills up, counted as in the paper, and played."""

import json

import pytest
import torch
from torch import nn

from lottalora.build import build
from lottalora.data.batches.batch import Windows
from lottalora.data.batches.windows import Normalisation
from lottalora.data.halfcheetah import HalfCheetah
from lottalora.models.decision_transformer import DecisionTransformer
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks import rollout

PAIR = ("model=decision_transformer", "data=halfcheetah")
FULL = {"small": 727_558, "large": 152_216_582}
TRAINABLE = {
    ("small", 1): 141_208,
    ("small", 2): 148_120,
    ("small", 4): 161_944,
    ("small", 8): 189_592,
    ("small", 16): 244_888,
    ("small", 32): 355_480,
    ("large", 8): 2_880_590,
}


def net_of(layers: int = 2, heads: int = 2) -> DecisionTransformer:
    """A small net in double precision whose every weight matters."""
    torch.manual_seed(0)
    net = DecisionTransformer((5, 3), 2, width=8, layers=layers, heads=heads, dropout=0.1).double().eval()
    for value in net.parameters():
        nn.init.uniform_(value, -0.7, 0.7)
    return net


def windows_of(steps: int = 5) -> Windows:
    torch.manual_seed(1)
    returns, states, actions = (torch.randn(4, steps, width, dtype=torch.float64) for width in (1, 3, 2))
    return Windows(returns, states, actions, torch.arange(steps).expand(4, -1), torch.ones(4, steps).bool())


def changed(windows: Windows, part: str, step: int) -> Windows:
    other = getattr(windows, part).clone()
    other[:, step] += 1
    return windows._replace(**{part: other})


@pytest.mark.parametrize(("size", "rank"), TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_table_23_says(composed, size, rank):
    cfg = composed(*PAIR, f"model.size={size}", f"rank={rank}")
    with torch.device("meta"):
        net, account = build(cfg, HalfCheetah.spec)
    assert account.trainable == TRAINABLE[size, rank] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL[size]


@pytest.mark.parametrize("size", FULL)
def test_a_baseline_trains_every_parameter(composed, size):
    with torch.device("meta"):
        _, account = build(composed(*PAIR, "mode=baseline", f"model.size={size}"), HalfCheetah.spec)
    assert account.trainable == account.full == FULL[size]


@pytest.mark.parametrize("part", ["returns", "states", "actions"])
def test_a_later_step_changes_no_earlier_action(part):
    net, windows = net_of(), windows_of()
    before, after = net(windows), net(changed(windows, part, 3))
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.allclose(after[:, 4], before[:, 4])


@pytest.mark.parametrize(("part", "seen"), [("returns", True), ("states", True), ("actions", False)])
def test_a_step_sees_its_return_and_state_and_not_its_action(part, seen):
    net, windows = net_of(), windows_of()
    same = torch.allclose(net(changed(windows, part, 2))[:, 2], net(windows)[:, 2])
    assert same is not seen


def test_what_fills_up_changes_no_action():
    net, windows = net_of(), windows_of(3)
    filled = Windows(*(torch.cat([torch.ones_like(part[:, :2]), part], dim=1) for part in windows))
    mask = torch.tensor([False, False, True, True, True]).expand(4, -1)
    torch.testing.assert_close(net(filled._replace(mask=mask))[:, 2:], net(windows))


def test_actions_lie_between_minus_one_and_one():
    prediction = net_of()(windows_of())
    assert prediction.shape == (4, 5, 2)
    assert prediction.abs().max() < 1


def test_the_last_block_gives_at_the_states_what_it_would_give_there_among_all_tokens():
    block = net_of().blocks[-1]
    h = torch.randn(4, 6, 8, dtype=torch.float64)
    seen = torch.ones(6, 6, dtype=torch.bool).tril().expand(4, 1, -1, -1)
    torch.testing.assert_close(block(h, seen, at=slice(1, None, 3)), block(h, seen)[:, 1::3])


def test_every_trained_parameter_gets_a_gradient():
    net = net_of()
    wrap(net, Scaffold(rank=2, B_init="kaiming", bias="frozen"), keep=["embed_*", "action"])
    net(windows_of()).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_d4rls_random_policy_scores_0_and_its_expert_100():
    import numpy as np

    scores = rollout.d4rl_score(np.array([-280.178953, 12135.0, 5927.4105235]))
    assert scores == pytest.approx([0, 100, 50])


class Echo(nn.Module):
    """A policy that says each action as half the newest return it is shown, and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.action = nn.Linear(1, 6)
        self.seen: list[Windows] = []

    def forward(self, x: Windows) -> torch.Tensor:
        self.seen.append(Windows(*(part.clone() for part in x)))
        return (x.returns / 2).expand(-1, -1, 6)


def test_a_played_episode_fills_the_context_from_the_right_and_takes_off_what_was_earned():
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    net = Echo()
    normalisation = Normalisation(mean=torch.zeros(17), std=torch.ones(17), return_scale=10.0)
    earned = rollout.play(
        net, normalisation, environment="HalfCheetah-v4", episodes=2, context=3, target_return=10, steps=4
    )
    assert earned.shape == (2,)
    first, second, last = net.seen[0], net.seen[1], net.seen[-1]
    assert first.mask.tolist() == 2 * [[False, False, True]]
    assert second.steps.tolist() == 2 * [[0, 0, 1]]
    assert last.steps.tolist() == 2 * [[1, 2, 3]]
    torch.testing.assert_close(second.actions[:, -2], first.returns[:, -1].expand(-1, 6) / 2)
    assert torch.equal(second.actions[:, -1], torch.zeros(2, 6))
    assert first.returns[:, -1].flatten().tolist() == [1, 1]
    assert (second.returns[:, -1] < 1).any() or (second.returns[:, -1] > 1).any()


def test_the_same_policy_earns_the_same_again_and_leaves_no_file(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium", reason="gymnasium is not installed")
    pytest.importorskip("mujoco", reason="MuJoCo is not installed")
    monkeypatch.chdir(tmp_path)
    normalisation = Normalisation(mean=torch.zeros(17), std=torch.ones(17))
    options = {"environment": "HalfCheetah-v4", "episodes": 2, "context": 3, "target_return": 10, "steps": 5}
    first, again = (rollout.play(Echo(), normalisation, **options) for _ in range(2))
    assert (first == again).all()
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_environment_is_refused():
    with pytest.raises(ValueError, match="Unknown task.environment 'HalfCheetah-v9'. Known: HalfCheetah-v4"):
        rollout.check("HalfCheetah-v9", 10)


def test_a_number_of_episodes_that_is_none_is_refused():
    with pytest.raises(ValueError, match="task.episodes must be a whole number, 0 or more, got -1"):
        rollout.check("HalfCheetah-v4", -1)


def test_without_mujoco_playing_is_refused_before_the_training_and_can_be_left_out(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match="cannot be played here.*gymnasium.mujoco.*task.episodes=0"):
        rollout.check("HalfCheetah-v4", 10)
    rollout.check("HalfCheetah-v4", 0)


@pytest.mark.parametrize("mode", ["baseline", "scaffold", "resample_epoch"])
def test_the_stand_in_trains_from_the_command_and_leaves_a_row(command, tmp_path, mode):
    words = ("data.sample=true", "rank=2", "trainer.epochs=1", "task.episodes=0", f"mode={mode}")
    finished = command(*PAIR, *words)
    assert finished.returncode == 0, finished.stderr
    (path,) = (tmp_path / "results" / "rows").rglob("*.json")
    row = rows.read(path)
    assert (row["metric"], row["higher_is_better"], row["further"]) == ("mse", False, {})
    assert row["score"] == pytest.approx(row["validation_score"])
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_the_dry_run_as_json_gives_the_counts(command):
    finished = command(*PAIR, "rank=1", "dry_run=json")
    assert json.loads(finished.stdout) == {
        "trainable": 141_208,
        "internal_trainable": 6_930,
        "full": 727_558,
        "full_plus_adapters": 734_488,
    }
