"""CfC: equal to ncps, blind to padding, counted as in the paper, and trained from the command."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lottalora.build import build
from lottalora.data.batches.batch import Sequences
from lottalora.data.physionet2012 import PhysioNet2012
from lottalora.models.cfc import CfC
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.tasks.binary import Binary

FULL = {"0.125x": 2_210, "0.25x": 7_106, "0.5x": 24_962, "1x": 92_930}
TRAINABLE = {
    ("0.125x", 1): 514,
    ("0.125x", 4): 1_408,
    ("0.25x", 1): 938,
    ("0.25x", 2): 1_452,
    ("0.5x", 1): 1_786,
    ("0.5x", 4): 4_624,
    ("1x", 1): 3_482,
    ("1x", 2): 5_292,
    ("1x", 4): 8_912,
    ("1x", 8): 16_152,
    ("1x", 16): 30_632,
    ("1x", 32): 59_592,
}


def net_on(
    rank: int | None, dtype: torch.dtype = torch.float32, *, hidden: int = 12, backbone: int = 6
) -> CfC:
    """A small net, dense or on a scaffold whose B is not 0."""
    torch.manual_seed(0)
    net = CfC((5,), 2, hidden=hidden, backbone=backbone, dropout=0.3).to(dtype)
    if rank:
        wrap(net, Scaffold(rank=rank, B_init="kaiming"), keep=["head"])
    for value in net.parameters():
        nn.init.uniform_(value, -0.7, 0.7)
    return net


def batch(dtype: torch.dtype = torch.float32) -> Sequences:
    """Four records of 3, 7, 1 and 7 steps; what is noted behind a record's last step is not 0."""
    torch.manual_seed(1)
    lengths = torch.tensor([3, 7, 1, 7])
    return Sequences(torch.randn(4, 7, 5, dtype=dtype), 3 * torch.rand(4, 7, dtype=dtype), lengths)


def by_ncps(net: CfC, x: Sequences) -> torch.Tensor:
    """The logits that ncps's own loop over time gives with the same weights."""
    from ncps.torch import CfC as Ncps

    loop = Ncps(5, 12, backbone_units=6, backbone_layers=2)
    loop.rnn_cell = net.cell
    states, _ = loop(x.inputs, timespans=x.elapsed[:, :, None].expand(-1, -1, 12))
    return net.head(states[torch.arange(4), x.lengths - 1])


@pytest.mark.parametrize("steps", [2, 7])
def test_a_training_step_composes_each_weight_as_often_for_few_steps_as_for_many(steps, monkeypatch):
    composed = []
    make = LottaLayer._matrix
    monkeypatch.setattr(LottaLayer, "_matrix", lambda layer: composed.append(layer) or make(layer))
    x = batch()
    net_on(2)(x._replace(lengths=x.lengths.clamp(max=steps))).sum().backward()
    assert len(composed) == 6


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_the_loop_over_time_gives_what_ncps_gives(rank):
    net = net_on(rank).eval()
    torch.testing.assert_close(net(batch()), by_ncps(net, batch()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 1, 3])
def test_every_gradient_is_the_one_that_ncps_gives(rank):
    net, label = net_on(rank).eval(), torch.tensor([0, 1, 1, 0])
    for name, value in net.named_parameters():
        (ours,) = torch.autograd.grad(F.cross_entropy(net(batch()), label), value)
        (theirs,) = torch.autograd.grad(F.cross_entropy(by_ncps(net, batch()), label), value)
        assert theirs.abs().max() > 1e-6, name
        torch.testing.assert_close(
            ours, theirs, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_gradients_are_those_of_finite_differences_under_dropout():
    net, x = net_on(2, torch.float64, hidden=4, backbone=3).train(), batch(torch.float64)
    names, values = zip(*net.named_parameters(), strict=True)

    def logits(*values):
        torch.manual_seed(2)  # the same units are dropped at each call
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(logits, values, eps=1e-6, atol=1e-6)


def test_dropout_acts_in_training_alone():
    net, x = net_on(None), batch()
    assert torch.equal(net.eval()(x), net(x))
    assert not torch.equal(net.train()(x), net(x))


def test_what_stands_behind_the_last_observed_step_is_never_looked_at():
    net, x = net_on(2).eval(), batch()
    longer = Sequences(
        F.pad(x.inputs, (0, 0, 0, 5), value=9.0), F.pad(x.elapsed, (0, 5), value=9.0), x.lengths
    )
    torch.testing.assert_close(net(longer), net(x), rtol=0, atol=0)


def test_a_record_is_scored_alike_alone_and_beside_others():
    net, x = net_on(2).eval(), batch()
    for i, length in enumerate(x.lengths.tolist()):
        alone = Sequences(x.inputs[i : i + 1, :length], x.elapsed[i : i + 1, :length], x.lengths[i : i + 1])
        torch.testing.assert_close(net(alone), net(x)[i : i + 1])


def test_the_weights_are_those_of_ncps_by_name_and_shape():
    from ncps.torch import CfCCell

    theirs = CfCCell(5, 12, backbone_activation="silu", backbone_units=6, backbone_layers=2)
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in net_on(None).cell.state_dict().items()} == shapes


@pytest.mark.parametrize(("size", "rank"), TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_tables_6_and_17_say(composed, size, rank):
    words = ("model=cfc", "data=physionet2012", f"model.size={size}", f"rank={rank}")
    with torch.device("meta"):
        net, account = build(composed(*words), PhysioNet2012.spec)
    assert account.trainable == TRAINABLE[size, rank] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL[size]


def test_the_recipe_is_the_papers_protocol(composed):
    cfg = composed("model=cfc", "data=physionet2012")
    assert cfg.recipe.name == "paper"
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.schedule.gamma) == (2e-3, 4e-6, 0.9)
    assert (cfg.trainer.epochs, cfg.data.batch_size, cfg.task.positive_weight) == (100, 128, 11.69)


def test_the_loss_counts_a_death_by_its_weight():
    logits = torch.tensor([[0.3, -0.2], [0.1, 0.8]])
    task = Binary(nn.Identity(), PhysioNet2012.spec, None, None, positive_weight=11.69)
    loss = task.step((logits, torch.tensor([0, 1]))).loss
    costs = -logits.log_softmax(1)
    assert float(loss) == pytest.approx(float(costs[0, 0] + 11.69 * costs[1, 1]) / 12.69)


def test_the_score_is_the_share_of_pairs_in_the_right_order_also_of_very_sure_answers():
    task = Binary(nn.Identity(), PhysioNet2012.spec, None, None, positive_weight=1.0)
    sure = torch.tensor([[0.0, 20.0], [0.0, 22.0], [0.0, -1.0]])  # 1 − p is below the last digit of a float32
    for part, label in ((sure[:1], torch.tensor([0])), (sure[1:], torch.tensor([1, 0]))):
        step = task.step((part, label))
        task.test_score.update(step.prediction, step.target)
    assert task.test_score.compute().item() == 1.0


@pytest.mark.parametrize("mode", ["baseline", "scaffold"])
def test_a_run_on_the_stand_in_learns_and_scores_its_last_epoch(command, tmp_path, mode):
    words = ("model=cfc", "data=physionet2012", "data.sample=true", "model.size=0.25x", f"mode={mode}")
    finished = command(*words, "trainer.epochs=10", "data.batch_size=16", "optimizer.lr=0.02")
    assert finished.returncode == 0, finished.stderr
    (row,), problems = rows.read_all(tmp_path / "results")
    assert problems == []
    assert (row["metric"], row["validation_score"], row["best_epoch"]) == ("auroc", None, 9)
    assert row["score"] > 0.75
    assert json.dumps(row["config"]["data"]["split"]) == "0"


def test_missing_data_are_refused_in_one_line(command, tmp_path):
    finished = command("model=cfc", "data=physionet2012", f"paths.data={tmp_path}/nowhere")
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"error: PhysioNet 2012 is not at {tmp_path}/nowhere/physionet2012")
    assert "paths.data=FOLDER" in line
