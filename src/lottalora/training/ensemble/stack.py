"""The parameters of all members in one tensor each, and one step of all of them.

Letters: K members, N examples of a batch.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Generator
from torch import Tensor
from torch import nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from lottalora.scaffold.layers.convolution import LottaConv
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.tasks.base import Task
from lottalora.training.ensemble.layers import EnsembleLinear
from lottalora.training.ensemble.masks import OwnMasks


class Stack:
    """K tasks of one architecture as one.

    The parameters of the tasks, their gradients and the buffers of their states become views of the stacked
    tensors: so each task keeps its own optimizer, callbacks and checkpoints. W_seed is copied, since a task
    is later scored without it and with another one.

    Args:
        tasks: of the members.
        generators: of their dropout.

    Raises:
        ValueError: their nets differ in shape.
    """

    def __init__(self, tasks: Sequence[Task], generators: Sequence[Generator]) -> None:
        check_shapes(tasks)
        check_layers(tasks[0])
        self.generators = generators
        self.members = torch.arange(len(tasks))
        self.template = StepOf(template_of(tasks[0]))
        with torch.no_grad():
            self.parameters = {
                name: stacked_parameter(tasks, name) for name, _ in tasks[0].named_parameters()
            }
            buffers = {name: stacked_buffer(tasks, name) for name, _ in tasks[0].named_buffers()}
            factors = {
                f"{name}.factor": torch.tensor([task.get_submodule(name).adapter.scale for task in tasks])
                for name, layer in self.template.task.named_modules()
                if isinstance(layer, EnsembleLinear)
            }
        state = self.parameters | buffers | factors
        self.state = {f"task.{name}": tensor for name, tensor in state.items()}

    def zero_grad(self) -> None:
        """Set the gradients to 0 in place: the members' are views of them."""
        torch._foreach_zero_([each.grad for each in self.parameters.values() if each.requires_grad])

    def step(self, batch: object, *, shared: bool, training: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Loss (K,), prediction and target (K, N, …), and weight (K,) of the loss.

        Args:
            batch: tensors (K, N, …), or (N, …) where all members see the same.
            shared: whether they do.
            training: whether the nets train, with dropout.

        Raises:
            ValueError: the net draws random numbers otherwise than by dropout, or cannot be computed for all
                members at once.
        """
        self.template.train(training)

        def one(state: dict[str, Tensor], member: Tensor, batch: object) -> tuple[Tensor, ...]:
            with OwnMasks(member, self.generators):
                return functional_call(self.template, state, (batch,))

        try:
            return torch.vmap(one, in_dims=(0, 0, None if shared else 0))(self.state, self.members, batch)
        except RuntimeError as error:
            if "randomness" in str(error):
                cause = (
                    "draws random numbers otherwise than by torch's dropout, which an ensemble cannot repeat "
                    "for each member"
                )
            elif "functorch" in str(error) or "data pointer" in str(error):
                cause = "has a step that cannot be computed for all members at once"
            else:
                raise
            raise ValueError(f"This net {cause}. Type ensemble=false.") from error


class StepOf(nn.Module):
    """A task's step as a module, whose parameters `functional_call` can replace."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, batch: object) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        step = self.task.step(batch)
        weight = step.loss.new_tensor(len(step.target)) if step.weight is None else step.weight
        return step.loss, step.prediction, step.target, weight


def template_of(task: Task) -> Task:
    """A copy of the task whose adapted linear layers compute all members at once.

    A layer that trains its W_seed stays as it is: vmap differentiates it.
    """
    template = copy.deepcopy(task)
    for module in template.modules():
        if type(module) is LottaLinear and "W_seed" in module._buffers:
            module.__class__ = EnsembleLinear
            module.register_buffer("factor", torch.tensor(module.adapter.scale))
    return template


def stacked_parameter(tasks: Sequence[Task], name: str) -> Tensor:
    """The parameter of all tasks, (K, …); theirs become views of it, and their gradients of its own."""
    own = [task.get_parameter(name) for task in tasks]
    stacked = torch.stack([parameter.detach() for parameter in own])
    for parameter, values in zip(own, stacked, strict=True):
        parameter.data = values
    if own[0].requires_grad:
        stacked.requires_grad_()
        stacked.grad = torch.zeros_like(stacked)
        for parameter, gradient in zip(own, stacked.grad, strict=True):
            parameter.grad = gradient
    return stacked


def stacked_buffer(tasks: Sequence[Task], name: str) -> Tensor:
    """The buffer of all tasks, (K, …); theirs become views of it if their states contain them."""
    module, _, attribute = name.rpartition(".")
    owners = [task.get_submodule(module) for task in tasks]
    stacked = torch.stack([getattr(owner, attribute) for owner in owners])
    if attribute not in owners[0]._non_persistent_buffers_set:
        for owner, values in zip(owners, stacked, strict=True):
            setattr(owner, attribute, values)
    return stacked


def check_layers(task: Task) -> None:
    """Raise ValueError for a net with layers that are slower for all members at once than one by one."""
    for name, module in task.net.named_modules():
        if isinstance(module, (LottaConv, _ConvNd)):
            raise ValueError(
                f"{name} is a convolution: for all members at once it is a grouped one, which takes longer "
                "than the runs one by one. Type ensemble=false."
            )


def check_shapes(tasks: Sequence[Task]) -> None:
    """Raise ValueError for the first parameter that two members have in different shapes."""
    first = {name: tuple(each.shape) for name, each in tasks[0].named_parameters()}
    for number, task in enumerate(tasks[1:], start=1):
        shapes = {name: tuple(each.shape) for name, each in task.named_parameters()}
        for name in first | shapes:
            if first.get(name) != shapes.get(name):
                raise ValueError(
                    f"The members of an ensemble have one shape: {name} is {first.get(name)} in the first "
                    f"and {shapes.get(name)} in number {number + 1}."
                )
