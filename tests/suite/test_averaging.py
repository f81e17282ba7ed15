"""The average of the weights is what is validated and kept; training goes on with its own."""

from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.nn import functional as F

from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.averages import EMA
from lottalora.tasks.averages import averages_of
from lottalora.tasks.classification import Classification
from lottalora.tasks.mixed_classification import MixedClassification
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit


def task(*, average: float | None, label_smoothing: float = 0.0, flip: bool = False) -> MixedClassification:
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    schedule = partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    return MixedClassification(
        net, Digits.spec, optimizer, schedule, label_smoothing=label_smoothing, average=average, flip=flip
    )


def head(module: nn.Module) -> torch.Tensor:
    return module.net.head.weight.detach().clone()


class Watch(Callback):
    """The head after each batch, and as it is validated."""

    def __init__(self) -> None:
        self.trained, self.validated = [], []

    def on_train_start(self, trainer, task):
        self.trained.append(head(task))

    def on_train_batch_end(self, trainer, task, *_):
        self.trained.append(head(task))

    def on_validation_batch_end(self, trainer, task, *_):
        self.validated.append(head(task))


def trained(folder, *, average: float | None, epochs: int = 1, accumulate: int = 1):
    watch, net = Watch(), task(average=average)
    plan = TrainerSettings(epochs=epochs, accelerator="cpu", accumulate=accumulate)
    splits = Digits(batch_size=420).read()  # three batches an epoch
    training = fit(net, splits, plan, seed=0, higher_is_better=True, folder=folder, callbacks=[watch])
    return watch, head(net), training


def averaged(weights: list[torch.Tensor], decay: float) -> torch.Tensor:
    average = weights[0]
    for n, weight in enumerate(weights[1:]):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight
    return average


@pytest.mark.parametrize("decay", [0.9997, 0.12])
def test_what_is_validated_and_kept_is_the_average_with_its_warm_up(tmp_path, decay):
    watch, kept, _ = trained(tmp_path, average=decay)
    assert len(watch.trained) == 4
    torch.testing.assert_close(watch.validated[-1], averaged(watch.trained, decay))
    assert torch.equal(kept, watch.validated[-1])
    assert not torch.equal(kept, watch.trained[-1])


def test_the_average_does_not_change_what_is_trained(tmp_path):
    with_average, _, _ = trained(tmp_path / "a", average=0.9, epochs=3)
    without, _, _ = trained(tmp_path / "b", average=None, epochs=3)
    assert all(map(torch.equal, with_average.trained, without.trained))


def test_the_average_is_over_steps_and_not_over_batches(tmp_path):
    watch, _, training = trained(tmp_path, average=0.9997, accumulate=2)
    assert training.trainer.global_step == 2
    steps = [watch.trained[0], watch.trained[2], watch.trained[3]]  # batch 1 accumulates; 3 is the last
    assert torch.equal(watch.trained[0], watch.trained[1])
    torch.testing.assert_close(watch.validated[-1], averaged(steps, 0.9997))


def test_the_state_of_the_average_is_its_weights_and_their_number_of_steps():
    average, other = EMA(0.9), EMA(0.9)
    average.steps, average.weights = 7, [torch.ones(2)]
    other.load_state_dict(average.state_dict())
    assert other.steps == 7
    assert torch.equal(other.weights[0], torch.ones(2))


class Stop(Callback):
    """End the process, as it were, after a step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def on_scaffold(folder, average, *, stop=None, accumulate=1, epochs=3):
    """Train an MLP on a scaffold for three epochs of three batches; the weights kept, and all on the way."""
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    wrap(net, Scaffold(rank=2), keep=["head"])
    optimizer = partial(torch.optim.SGD, lr=0.1)
    made = Classification(
        net, Digits.spec, optimizer, partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)
    )
    plan = TrainerSettings(
        epochs=epochs, accelerator="cpu", average=average, accumulate=accumulate, checkpoint_every=0
    )
    watch, splits = Watch(), Digits(batch_size=420).read()
    fit(made, splits, plan, seed=0, higher_is_better=True, folder=folder, callbacks=[watch, Stop(stop)])
    return watch, made.state_dict()


def test_swa_is_the_mean_over_the_steps_of_the_last_quarter(tmp_path):
    watch, _ = on_scaffold(tmp_path, "swa", epochs=4)  # 12 steps; the first nine are not averaged
    assert torch.equal(watch.validated[0], watch.trained[3])
    assert torch.equal(watch.validated[1], watch.trained[6])
    torch.testing.assert_close(watch.validated[3], sum(watch.trained[10:13]) / 3)
    assert not torch.equal(watch.trained[12], watch.trained[11])


def test_ema_of_the_trainer_is_the_average_with_its_warm_up(tmp_path):
    watch, _ = on_scaffold(tmp_path, "ema")
    torch.testing.assert_close(watch.validated[-1], averaged(watch.trained, 0.999))


@pytest.mark.parametrize(("average", "stop", "accumulate"), [("ema", 1, 1), ("swa", 8, 1), ("ema", 3, 2)])
def test_a_stopped_run_goes_on_to_the_same_average_to_the_bit(tmp_path, average, stop, accumulate):
    watch, whole = on_scaffold(tmp_path / "whole", average, accumulate=accumulate)
    with pytest.raises(RuntimeError, match="stopped"):
        on_scaffold(tmp_path / "parts", average, accumulate=accumulate, stop=stop)
    rest, again = on_scaffold(tmp_path / "parts", average, accumulate=accumulate)
    assert torch.equal(rest.validated[-1], watch.validated[-1])
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_without_a_validation_part_the_average_of_the_last_step_is_kept(tmp_path):
    net, watch, splits = task(average=0.9), Watch(), Digits(batch_size=420).read()
    object.__setattr__(splits, "validation_batches", lambda: None)
    fit(net, splits, TrainerSettings(epochs=1, accelerator="cpu"), seed=0, higher_is_better=True,
        folder=tmp_path, callbacks=[watch])  # fmt: skip
    assert watch.validated == []
    torch.testing.assert_close(head(net), averaged(watch.trained, 0.9))


def test_an_average_of_a_net_with_batch_normalisation_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match="trainer.average=swa averages weights, and this net has batch norm"):
        averages_of("swa", net)
    assert averages_of(None, net) == []


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_cannot_be_is_refused(decay):
    with pytest.raises(ValueError, match="task.average must be from 0 to below 1"):
        EMA(decay)


def test_training_smooths_shares_of_classes_and_validation_takes_the_class_as_it_is():
    module = task(average=None, label_smoothing=0.1)
    x, label = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    shares = F.one_hot(label, 10).float()
    logits = module.net(x)
    smooth = 0.9 * shares + 0.1 / 10
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(module.train().step((x, shares)).loss, expected)
    torch.testing.assert_close(module.eval().step((x, label)).loss, F.cross_entropy(logits, label))


def test_flip_scores_the_mean_over_an_image_and_its_mirror_image_but_trains_on_the_image():
    module, x, label = task(average=None, flip=True), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    both = (module.net(x) + module.net(x.flip(-1))) / 2
    torch.testing.assert_close(module.eval().step((x, label)).prediction, both)
    shares = F.one_hot(label, 10).float()
    torch.testing.assert_close(module.train().step((x, shares)).prediction, module.net(x))
