"""Data parallelism: every process works on its rows of each batch, and all take the same step.

The mean over a batch is put together from the sums of the processes, each counted by its examples, so loss,
gradient and score are those of one process with the whole batch, but for the order in which floats are added.
Only dropout differs: each process draws its own masks, a function of (seed, epoch, batch, process).
"""

import hashlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.environments import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch import distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.modules.batchnorm import _BatchNorm

from lottalora.data.batches.batch import parts_of
from lottalora.data.batches.batch import row_count
from lottalora.data.batches.order import Batches
from lottalora.data.batches.order import seed_from
from lottalora.data.splits import Splits
from lottalora.distributed.collectives import all_gather
from lottalora.distributed.collectives import process_rank
from lottalora.distributed.collectives import world_size
from lottalora.scaffold.whole_model.shards import shard
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Share(NamedTuple):
    """One process's rows of a batch; where there are too few, one row that is not counted."""

    rows: object
    counted: bool


def distribute(task: Task, splits: Splits, *, strategy: str, device: str) -> Splits:
    """Have this process work on its rows of every batch, and with fsdp hold its rows of every W_seed.

    Args:
        task: changed in place.
        splits: the data.
        strategy: ddp or fsdp; with fsdp the scaffold is not drawn yet.
        device: the kind, cpu or cuda.

    Raises:
        ValueError: the processes differ in what each has drawn or read, or the net mixes examples.
    """
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if device == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes share {torch.cuda.device_count()} GPU(s) here. "
            f"Type trainer.devices={torch.cuda.device_count()}, or trainer.accelerator=cpu."
        )
    mixing = [name for name, module in task.net.named_modules() if isinstance(module, _BatchNorm)]
    if mixing:
        raise ValueError(
            f"This net normalises over the batch ({mixing[0]}), and each of {world_size()} devices has a "
            "part only, so it would be another net. Type trainer.devices=1."
        )
    check_equal(task.net, splits, drawn=strategy == "ddp")
    if strategy == "fsdp":
        called = [name for name in ("loss",) if hasattr(task.net, name)]  # by tasks, beside forward
        shard(task.net, init_device_mesh(device, (world_size(),)), methods=called)
    task.step = of_share(task.step)
    return SharedSplits(splits)


def check_equal(net: nn.Module, splits: Splits, *, drawn: bool) -> None:
    """Raise ValueError unless all processes hold the same weights and data; each drew and read its own."""
    layers = {name: module for name, module in net.named_modules() if hasattr(module, "W_seed")}
    held = {name: layer.W_seed for name, layer in layers.items() if drawn or layer.source is None}
    tensors = [*net.named_parameters(), *net.named_buffers()]
    # DoRA's magnitudes are norms of rows of W_seed, which `shard` computes where no process has drawn it yet.
    left_out = {"W_seed", "identity", *(() if drawn else ("magnitude",))}
    others = {name: t for name, t in tensors if name.rpartition(".")[2] not in left_out}
    ours = {
        "trained weights": digest(others),
        "frozen weights": str([layer.source for layer in layers.values()]) + digest(held),
        "data": splits.fingerprint(),
    }
    for name, mine in ours.items():
        every = all_gather(mine)
        odd = [rank for rank, theirs in enumerate(every, start=1) if theirs != every[0]]
        if odd:
            raise ValueError(
                f"Process {odd[0]} of {world_size()} has other {name} than the first. "
                "Start all with the same command, on the same code, data and versions."
            )


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names and bits."""
    total = hashlib.sha256()
    for name, tensor in tensors.items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()


@dataclass(frozen=True)
class SharedSplits:
    """Splits of which every batch is shared out."""

    splits: Splits

    def train_batches(self, seed: int) -> "Shares":
        return Shares(self.splits.train_batches(seed))

    def validation_batches(self) -> "Shares | None":
        batches = self.splits.validation_batches()
        return None if batches is None else Shares(batches)

    def test_batches(self) -> "Shares":
        return Shares(self.splits.test_batches())

    def fingerprint(self) -> str:
        return self.splits.fingerprint()


class Shares:
    """This process's share of every batch; all else, the state for resuming among it, is the batches' own."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> object:
        return getattr(self.batches, name)

    def __iter__(self) -> Iterator[Share]:
        order = self.batches.sampler
        first = self.batches.first
        for place, batch in enumerate(self.batches, start=first):
            if order.seed is not None:
                torch.manual_seed(seed_from(order.seed, order.epoch, place, process_rank()))  # of dropout
            yield share_of(batch, process_rank(), world_size())


def share_of(batch: object, process: int, processes: int) -> Share:
    """Return rows rank, rank + world_size, … of a batch; one that is not counted where there are too few.

    Raises:
        ValueError: the batch is not made of tensors that have one row for each example.
    """
    rows = {row_count(part) for part in parts_of(batch)}
    if len(rows) != 1 or min(rows) == 0:
        raise ValueError(
            "A batch of these data is no list of examples that devices could share out. "
            "Type trainer.devices=1."
        )
    counted = process < rows.pop()
    own = slice(process, None, processes) if counted else slice(1)
    return Share(of_each(batch, lambda tensor: tensor[own].contiguous()), counted)  # some metrics ask for it


def of_each(batch: object, function: Callable[[Tensor], Tensor]) -> object:
    """Apply a function to every tensor of a batch."""
    if isinstance(batch, Tensor):
        return function(batch)
    parts = [of_each(part, function) for part in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def of_share(step: Callable[[object], Step]) -> Callable[[Share], Step]:
    """The step of a whole batch, made of those of its shares.

    The loss has the value of the whole batch. Its gradient is that of the share, weighted so that the mean
    over the processes, which DDP takes, is the gradient of the whole.
    """

    def of_whole(share: Share) -> Step:
        loss, prediction, target, weight = step(share.rows)
        if not share.counted:
            prediction = prediction[:0] if prediction.dim() else prediction  # a mean has no rows
            target, weight = target[:0], 0
        own = loss.new_zeros(()) + (len(target) if weight is None else weight)
        sums = torch.stack([loss.detach() * own, own])
        distributed.all_reduce(sums)
        weighted = loss * (world_size() * own / sums[1])
        return Step(weighted + (sums[0] / sums[1] - weighted).detach(), prediction, target, sums[1])

    return of_whole


class GradientsOnly(DDPStrategy):
    """DDP that sends gradients only: every process has drawn its weights from the seed."""

    def __init__(self) -> None:
        super().__init__(init_sync=False, broadcast_buffers=False)

    def setup(self, trainer: Trainer) -> None:
        """As DDPStrategy does, without the weights that it sends from the first process before a test."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().setup(trainer)
            return
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self.setup_precision_plugin()


def device_settings() -> dict:
    """Return the arguments of Lightning's trainer that describe the run's processes."""
    if world_size() == 1:  # also in a Slurm job, which is not Lightning's
        return {"devices": 1, "plugins": [LightningEnvironment()]}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {
        "devices": here,
        "num_nodes": world_size() // here,
        "strategy": GradientsOnly(),
        "plugins": [TorchElasticEnvironment()],
        "use_distributed_sampler": False,
    }
