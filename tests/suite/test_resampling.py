"""Training over many scaffolds within a step: parts of batches, their scaffolds, and what is scored."""

import copy
import signal

import pytest
import torch
from torch.nn import functional as F

from lottalora.data.batches.batch import Sequences
from lottalora.data.batches.parts import Parts
from lottalora.data.batches.parts import pieces
from lottalora.data.batches.parts import whole
from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import resample
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.resampling import Resampling
from lottalora.training.resampling import SplitsInParts
from tests.suite.test_resume import assert_equal_to_the_bit
from tests.suite.test_resume import finish
from tests.suite.test_resume import row
from tests.suite.test_resume import stop_with

LR = 0.5


def net_on_scaffold() -> MLP:
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    wrap(net, Scaffold(rank=2, seed=1, B_init="kaiming"), keep=["head"])
    return net


def trained(plan: Resampling, tmp_path) -> MLP:
    """After one epoch of one batch of all training digits, by plain gradient descent."""
    net, data = net_on_scaffold(), Digits(batch_size=10_000)
    schedule = lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)  # noqa: E731
    task = Classification(net, data.spec, lambda trained: torch.optim.SGD(trained, lr=LR), schedule)
    settings = plan.settings(TrainerSettings(epochs=1, accelerator="cpu"))
    splits = plan.splits(data.read())
    fit(task, splits, settings, seed=1, higher_is_better=True, folder=tmp_path, callbacks=plan.callbacks())
    return net


def stepped_by_hand(every: str, numbers: list[int]) -> MLP:
    """One step along the mean of the gradients under the scaffolds of these numbers."""
    net, batches = net_on_scaffold(), Digits(batch_size=10_000).read().train_batches(1)
    x, label = next(iter(batches))
    cut = {"batch": whole, "part": pieces}[every]
    for number, (some, labels) in zip(numbers, cut((x, label), len(numbers)), strict=True):
        resample(net, number)
        (F.cross_entropy(net(some), labels) / len(numbers)).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= LR * parameter.grad
    return net


@pytest.mark.parametrize("every", ["batch", "part"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_step_follows_the_mean_gradient_over_its_scaffolds(every, fresh, tmp_path):
    ours = trained(Resampling(every, 3, fresh), tmp_path)
    by_hand = stepped_by_hand(every, [1, 2, 3])
    for (name, parameter), expected in zip(ours.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_fresh_scaffolds_never_come_back_and_the_same_k_always_do():
    fresh, same = Resampling("batch", 2, True), Resampling("batch", 2, False)
    assert [number for step in range(3) for number in fresh.numbers(step)] == [1, 2, 3, 4, 5, 6]
    assert [list(same.numbers(step)) for step in range(3)] == [[1, 2]] * 3


def test_scores_are_taken_under_the_scaffolds_of_the_best_epochs_last_step():
    assert list(Resampling("part", 4, True).scored(epoch=1, batches=12)) == [21, 22, 23, 24]  # step 5 of 0 …
    assert list(Resampling("part", 4, False).scored(epoch=1, batches=12)) == [1, 2, 3, 4]
    assert list(Resampling("epoch").scored(epoch=6, batches=12)) == [7]


def test_held_scaffold_is_the_one_that_is_drawn():
    net, held = net_on_scaffold(), {}
    for number in (5, 6, 5):
        resample(net, number, held=held)
    fresh = net_on_scaffold()
    resample(fresh, 5)
    assert torch.equal(net.body[1].W_seed, fresh.body[1].W_seed)
    assert net.body[1].source == fresh.body[1].source
    assert sorted(held) == [5, 6]


def test_pieces_keep_their_examples_together_and_lose_none():
    batch = (Sequences(torch.arange(10), torch.arange(10) + 100, torch.arange(10) + 200), torch.arange(10))
    parts = pieces(batch, 4)
    assert [len(label) for _, label in parts] == [3, 3, 2, 2]
    assert all(isinstance(x, Sequences) and torch.equal(x.elapsed, label + 100) for x, label in parts)
    assert torch.equal(torch.cat([label for _, label in parts]), torch.arange(10))


def test_batch_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="A batch of 3 examples cannot be cut into 4 parts"):
        pieces((torch.zeros(3, 2), torch.zeros(3)), 4)


def test_a_graph_is_no_list_of_examples_and_is_not_cut():
    nodes, bonds, labels = torch.zeros(9, 2), torch.zeros(2, 12), torch.zeros(4)
    with pytest.raises(ValueError, match="no list of examples that could be cut. Type mode=resample_batch"):
        pieces(((nodes, bonds), labels), 2)


def test_parts_have_what_a_task_reads_of_its_batches():
    whole_batches = Digits(batch_size=200).read().train_batches(1)
    whole_batches.labels = torch.arange(3)
    parts = Parts(whole_batches, lambda batch: [batch] * 2, 2)
    assert torch.equal(parts.labels, torch.arange(3))
    assert copy.copy(parts).count == 2  # a copy asks for its attributes before it has any
    assert not hasattr(parts, "nothing")


def test_parts_go_on_from_the_beginning_of_a_batch():
    splits = SplitsInParts(Digits(batch_size=200).read(), lambda batch: pieces(batch, 2), 2)
    first, again = splits.train_batches(1), splits.train_batches(1)
    assert len(first) == 2 * 7
    stream = iter(first)
    for _ in range(4):
        next(stream)
    again.load_state_dict(first.state_dict())
    assert torch.equal(next(iter(again))[1], next(stream)[1])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["resample_batch", "resample_microbatch"])
def test_stopped_run_ends_with_the_same_bits_and_scores_each_scaffold(mode, tmp_path):
    words = (f"mode={mode}", "trainer.epochs=6")
    whole_run, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(whole_run, *words)
    assert stop_with(signal.SIGTERM, stopped, *words) == 75
    assert "going on from" in finish(stopped, *words)
    assert_equal_to_the_bit(stopped, whole_run)
    arms = row(stopped)["arms"]
    count = len(arms) - 1
    assert set(arms) == {"scaffold_unseen", *(f"scaffold_{place}" for place in range(1, count + 1))}
    assert row(stopped)["score"] == pytest.approx(
        sum(arms[f"scaffold_{i}"] for i in range(1, count + 1)) / count
    )
