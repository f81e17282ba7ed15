"""The record of the scaffold goes wherever states go: Lightning, DDP, FSDP, another process."""

import copy
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn.parallel import DistributedDataParallel

from lottalora.scaffold import Scaffold
from lottalora.scaffold import verify
from lottalora.scaffold import wrap
from tests.suite.processes import joined_results

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def wrapped(seed=1):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    wrap(net, Scaffold(rank=2, seed=seed, B_init="kaiming"))
    return net


def train(net, parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    net(X).square().mean().backward()
    optimizer.step()


@pytest.mark.slow
def test_lightning_checkpoint_carries_the_record(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")

    class Task(lightning.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def training_step(self, batch, _):
            return self.net(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **options)
    task, path = Task(wrapped()), tmp_path / "last.ckpt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(task, torch.utils.data.DataLoader(X, batch_size=3))
    trainer.save_checkpoint(path)
    assert not torch.equal(task.net(X), wrapped()(X))
    read = Task.load_from_checkpoint(path, net=wrapped(), weights_only=True)
    assert torch.equal(read.net(X), task.net(X))
    with pytest.raises(ValueError, match="layer '0' belongs to another scaffold: it has seed 1"):
        Task.load_from_checkpoint(path, net=wrapped(seed=2), weights_only=True)


def test_ddp_averages_adapters_and_its_state_carries_the_record():
    def work():
        net = wrapped()
        parallel = DistributedDataParallel(net)
        for _ in range(2):
            train(parallel, net.parameters())
        state = copy.deepcopy(parallel.state_dict())
        with pytest.raises(ValueError, match="it has seed 1; this model has seed 2"):
            DistributedDataParallel(wrapped(seed=2)).load_state_dict(state)
        other = DistributedDataParallel(wrapped())
        other.load_state_dict(state)
        assert torch.equal(other(X), parallel(X)) and verify(net) == []
        return state

    alone = wrapped()
    for _ in range(2):
        train(alone, alone.parameters())
    for state in joined_results(work):
        plain = {name.removeprefix("module."): value for name, value in state.items()}
        other = wrapped()
        other.load_state_dict(plain)
        torch.testing.assert_close(other(X), alone(X))
        assert torch.equal(plain["0.identity"], alone.state_dict()["0.identity"])


def test_state_of_checkpointed_layers_goes_both_ways():
    checkpointed = wrapped()
    checkpointed[0] = checkpoint_wrapper(checkpointed[0])
    state = copy.deepcopy(checkpointed.state_dict())
    assert list(state) == list(wrapped().state_dict())
    checkpointed.load_state_dict(state)
    wrapped().load_state_dict(state)
    with pytest.raises(ValueError, match="layer '0' belongs to another scaffold: it has seed 2"):
        checkpointed.load_state_dict(wrapped(seed=2).state_dict())


def test_wrap_of_what_is_parallel_already_is_refused():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    def work():
        for parallel in (
            lambda net: DistributedDataParallel(net),
            lambda net: fully_shard(net, mesh=init_device_mesh("cpu", (2,))),
        ):
            net = parallel(nn.Sequential(nn.Linear(8, 6)))
            with pytest.raises(ValueError, match="is in .* already, which .*: call wrap before") as error:
                wrap(net, Scaffold(rank=2))
            assert "\n" not in str(error.value)

    joined_results(work)


FRESH = """
import sys
import torch
from torch import nn
from lottalora.scaffold import Scaffold, verify, wrap
torch.manual_seed(7)  # another start of everything that is trained
net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
wrap(net, Scaffold(rank=2, seed=1))
file = torch.load(sys.argv[1], weights_only=True)
net.load_state_dict(file["state"])
assert torch.equal(net(file["x"]), file["h"]) and verify(net) == []
"""


@pytest.mark.slow
def test_state_gives_the_same_bits_in_another_process(tmp_path):
    net = wrapped()
    train(net, net.parameters())
    torch.save({"state": net.state_dict(), "x": X, "h": net(X).detach()}, tmp_path / "state.pt")
    command = [sys.executable, "-c", FRESH, str(tmp_path / "state.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
