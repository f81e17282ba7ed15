r"""Which parameters weight decay acts on, and the value of β under decay alone.

Decoupled decay multiplies a weight by 1 − lr · wd each step. β starts at 1, so without a gradient it ends at

.. math:: \prod_t (1 - \mathrm{lr}_t \cdot \mathrm{wd})

"""

from collections.abc import Callable

from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import nn
from torch.optim import Optimizer

from lottalora.scaffold.layers.layer import LottaLayer

# Name of the choice → (what it keeps out of decay, in words; whether a parameter is kept out).
EXEMPT: dict[str, tuple[str, Callable[[nn.Parameter, set[int]], bool]]] = {
    "all_but_beta": ("β", lambda parameter, betas: id(parameter) in betas),
    "matrices": ("parameters with fewer than two axes", lambda parameter, betas: parameter.ndim < 2),
}
DECAYS = ("all", *EXEMPT)


def groups(net: nn.Module, trained: list[nn.Parameter], decay: str) -> list[nn.Parameter] | list[dict]:
    """What an optimizer takes: all as one group, or those that decay and those that do not.

    Args:
        net: in which β is found by its layer.
        trained: what the optimizer steps, in this order within each group.
        decay: `all`; `all_but_beta`; or `matrices`, which spares β, biases and the gains of norms.

    Raises:
        ValueError: an unknown choice, or one that keeps nothing out or everything.
    """
    if decay == "all":
        return trained
    if decay not in EXEMPT:
        raise ValueError(f"Unknown trainer.decay {decay!r}. Known: {', '.join(DECAYS)}.")
    words, is_exempt = EXEMPT[decay]
    betas = set(map(id, betas_of(net)))
    exempt = [parameter for parameter in trained if is_exempt(parameter, betas)]
    decayed = [parameter for parameter in trained if not is_exempt(parameter, betas)]
    if not exempt:
        raise ValueError(
            f"trainer.decay={decay} keeps {words} out of weight decay, and nothing of that kind is trained "
            "here. Type trainer.decay=all."
        )
    if not decayed:
        raise ValueError(
            f"trainer.decay={decay} leaves nothing that decays. Type optimizer.weight_decay=0 for that."
        )
    return [{"params": decayed}, {"params": exempt, "weight_decay": 0.0}]


def betas_of(net: nn.Module) -> list[nn.Parameter]:
    """The trained β of all layers."""
    layers = [module for module in net.modules() if isinstance(module, LottaLayer)]
    return [layer.beta for layer in layers if isinstance(layer.beta, nn.Parameter)]


class BetaDecay(Callback):
    """Keeps Π (1 − lr · wd) over the steps of the group that holds β, at the end of every epoch."""

    def __init__(self) -> None:
        self.product = 1.0  # over all steps so far
        self.after_epochs: list[float] = []
        self.known = False  # whether β is trained, by an optimizer whose decay is a product

    def at(self, epoch: int) -> float | None:
        """The product over the steps of the epochs up to this one, counted from 0.

        None where no β is trained, and where decay is part of the gradient (L2), as in `torch.optim.Adam`:
        such an optimizer rescales it with the gradient, so no product gives its effect.
        """
        return self.after_epochs[epoch] if self.known and self.after_epochs else None

    def state_dict(self) -> dict:
        return {"product": self.product, "after_epochs": self.after_epochs}

    def load_state_dict(self, state: dict) -> None:
        self.product, self.after_epochs = state["product"], list(state["after_epochs"])

    def on_train_start(self, trainer: Trainer, task) -> None:  # noqa: ANN001  a Task; tasks import this file
        (optimizer,) = trainer.optimizers
        place = place_of(optimizer, betas_of(task.net))
        if place is None:
            return
        self.known = is_a_product(optimizer.param_groups[place])
        if self.known:  # of the step itself: one that a loss scale leaves out does not count
            optimizer.register_step_post_hook(lambda stepped, *_: self.count(stepped.param_groups[place]))

    def count(self, group: dict) -> None:
        self.product *= 1 - float(group["lr"]) * group.get("weight_decay", 0.0)

    def on_train_epoch_end(self, *_: object) -> None:
        self.after_epochs.append(self.product)


def place_of(optimizer: Optimizer, betas: list[nn.Parameter]) -> int | None:
    """Which group of the optimizer holds β; None where there is none."""
    for place, group in enumerate(optimizer.param_groups):
        if any(parameter is beta for parameter in group["params"] for beta in betas[:1]):
            return place
    return None


def is_a_product(group: dict) -> bool:
    """Whether decay multiplies the weight at each step: where it is decoupled, or 0."""
    return group.get("weight_decay", 0) == 0 or group.get("decoupled_weight_decay", False)
