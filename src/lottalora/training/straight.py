"""The training step of one CPU in float32, without the hooks around it that nothing here has.

Lightning brings a batch to its device, enters the contexts of a precision, and calls hooks around the
backward pass and before the optimizer's step. On a CPU in float32 all of these do nothing, and for a small
net they cost a tenth of a step. The weights are the same to the last bit, and checkpoints fit either way.
"""

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning import LightningModule
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

AROUND_BACKWARD = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")  # hooks not called
OF_THE_TASK = (
    *AROUND_BACKWARD,
    "backward",
    "configure_gradient_clipping",
    "on_before_batch_transfer",
    "transfer_batch_to_device",
    "on_after_batch_transfer",
)
OF_A_STEP = ("on_train_batch_start", "on_before_zero_grad", "on_train_batch_end")  # those that are called
NOTHING = nullcontext()


class Straight(SingleDeviceStrategy):
    """One CPU in float32, no clipping: forward pass, backward pass and step, with nothing between."""

    def batch_to_device(self, batch: Any, *_: object, **__: object) -> Any:  # noqa: ANN401  any batch
        return batch

    def training_step(self, *args: object) -> dict:
        return self.lightning_module.training_step(*args)

    def backward(self, closure_loss: Tensor, *_: object) -> Tensor:
        closure_loss.backward()
        return closure_loss

    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Tensor], *_: object) -> Tensor:
        return optimizer.step(closure)


class Unprofiled(PassThroughProfiler):
    """Times nothing, and takes no time for it: Lightning asks 50 times a step."""

    def profile(self, action_name: str) -> nullcontext:
        return NOTHING


def has_no_hook_between(task: LightningModule, callbacks: Sequence[Callback]) -> bool:
    """Whether neither task nor callbacks have one of the hooks that `Straight` does not call."""
    of_task = any(is_own(task, name, LightningModule) for name in OF_THE_TASK)
    of_callbacks = any(is_own(each, name, Callback) for each in callbacks for name in AROUND_BACKWARD)
    return not of_task and not of_callbacks


def drop_empty_hooks(callbacks: Sequence[Callback]) -> None:
    """Set to None the hooks of a step that a callback inherits; Lightning passes over what it cannot call."""
    for each in callbacks:
        for name in OF_A_STEP:
            if not is_own(each, name, Callback):
                setattr(each, name, None)


def is_own(instance: object, name: str, base: type) -> bool:
    """Whether the object has this method from elsewhere than from Lightning's base class."""
    return getattr(getattr(instance, name), "__func__", None) is not getattr(base, name)
