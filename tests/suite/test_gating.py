"""Seed gating: who is asked what, what is counted, and that the scaffold decides the answer."""

import pytest
import torch
from torch import nn

from lottalora.config.check import check
from lottalora.data.gated_mnist import OUTSIDE
from lottalora.data.gated_mnist import GatedMNIST
from lottalora.data.gated_mnist import part_of
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.gating import Gating

GROUPS = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def data(**options) -> GatedMNIST:
    settings = {"root": "", "batch_size": 128, "groups": GROUPS, "out_of_class": False, "sample": True}
    return GatedMNIST(**(settings | options))


def test_a_scaffold_is_trained_on_its_own_digits_or_on_all_with_the_rest_outside():
    label = torch.tensor([1, 4, 9, 2, 5])
    x = label.float()
    own, labels = part_of(x, label, [1, 2, 3], False)
    assert own.tolist() == labels.tolist() == [1, 2]
    whole, labels = part_of(x, label, [1, 2, 3], True)
    assert torch.equal(whole, x)
    assert labels.tolist() == [1, OUTSIDE, OUTSIDE, 2, OUTSIDE]


@pytest.mark.parametrize(("outside", "chance"), [(False, 1 / 3), (True, 2 / 3)])
def test_digit_zero_is_tested_and_never_trained(outside, chance):
    gated = data(out_of_class=outside)
    splits = gated.read()
    assert gated.spec.chance == pytest.approx(chance)
    assert gated.spec.out_dim == 10 + outside
    assert not (splits.train.labels == 0).any() and not (splits.validation.labels == 0).any()
    assert (splits.test.labels == 0).any()
    for batch in splits.train_batches(1):
        for group, (_, label) in zip(GROUPS, splits.cut(batch, 3), strict=True):
            assert set(label.tolist()) <= {*group, *([OUTSIDE] if outside else [])}


@pytest.mark.parametrize("groups", [[[1, 2], [2, 3]], [[1], [10]]])
def test_groups_that_overlap_or_leave_the_digits_are_refused(groups):
    with pytest.raises(ValueError, match="data.groups must hold each digit 0 … 9 at most once"):
        data(groups=groups)


def test_batch_without_a_groups_digits_is_refused():
    with pytest.raises(ValueError, match="A batch of 1 images has none of the digits 4, 5, 6. Type a larger"):
        data().read().cut((torch.zeros(1, 1), torch.tensor([1])), 3)


class AnswersItsScaffold(nn.Module):
    """Calls every image by a digit that its W_seed alone decides."""

    def __init__(self, digit_of: dict[int, int]) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.digit_of = digit_of

    def forward(self, x):
        answer = self.digit_of[self.body.source.redraw]
        return (
            nn.functional.one_hot(torch.full((len(x),), answer), 11).float()
            + 0 * self.body(x.flatten(1)).sum()
        )


def test_answers_are_counted_for_each_scaffold_and_digit():
    net = AnswersItsScaffold({1: 1, 2: 5, 3: OUTSIDE})
    wrap(net, Scaffold(rank=1, seed=3))
    spec = data(out_of_class=True).spec
    task = Gating(net, spec, None, None, groups=GROUPS, out_of_class=True)
    label = torch.arange(10).repeat(2)
    task.asked_of_all((torch.randn(20, 1, 2, 2), label), task.test_score, task.answers)
    found = task.further_scores()
    assert found["own.1"] == found["own.2"] == pytest.approx(1 / 3)
    assert found["own.3"] == 0
    assert [found[f"rejected.{place}"] for place in (1, 2, 3)] == [0, 0, 1]
    assert found["answers.2.0.5"] == found["answers.1.9.1"] == 1.0
    assert not any(name.startswith("answers.2.") and not name.endswith(".5") for name in found)
    assert task.test_score.compute().item() == pytest.approx((1 + 1 + 6) / 27)


def test_answers_are_counted_where_the_net_is():
    spec = data().spec
    task = Gating(nn.Linear(4, 4), spec, None, None, groups=GROUPS, out_of_class=False)
    assert task.to("meta").answers.is_meta
    assert "answers" not in task.state_dict()


@pytest.mark.parametrize("words", [["data=gated_mnist"], ["data=mnist", "mode=gated"]])
def test_gated_data_and_mode_go_together(typed, words):
    with pytest.raises(ValueError, match="Type data=gated_mnist mode=gated."):
        check(typed(*words))


@pytest.mark.slow
def test_one_adapter_learns_what_each_scaffold_is_to_name(command, tmp_path):
    import json

    words = ["data=gated_mnist", "data.sample=true", "mode=gated", "rank=4", "model.size=tiny"]
    finished = command(*words, "trainer.epochs=40", f"paths.results={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    (path,) = tmp_path.glob("rows/*/*/*.json")
    further = json.loads(path.read_text())["further"]
    assert min(further[f"own.{place}"] for place in (1, 2, 3)) > 0.9
