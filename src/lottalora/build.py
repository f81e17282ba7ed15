"""Build the net of a config, wrap it in its scaffold, and count its weights."""

from bisect import bisect_right
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf import OmegaConf
from torch import nn

from lottalora.data.spec import DataSpec
from lottalora.scaffold import Account
from lottalora.scaffold import Scaffold
from lottalora.scaffold import materialize
from lottalora.scaffold import set_fused
from lottalora.scaffold import share_ranks
from lottalora.scaffold import wrap
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.whole_model.backbone import scaffold_layers


def set_up_torch(trainer: DictConfig, *, seed: int) -> None:
    """Set threads, flush-to-zero and the global seed; refuse a device or precision that is not there."""
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator='gpu' but PyTorch sees no GPU. Type trainer.accelerator=cpu.")
    if trainer.precision == "16-mixed" and device_kind(trainer) == "cpu":
        raise ValueError("trainer.precision=16-mixed needs a GPU. Type trainer.precision=bf16-mixed.")
    torch.set_num_threads(trainer.threads)
    torch.set_flush_denormal(True)  # numbers below 1e-38 are 0: they make a CfC's gradient 11 times as slow
    torch.manual_seed(seed)


def device_kind(trainer: DictConfig) -> str:
    """cuda or cpu."""
    return "cuda" if trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def build(cfg: DictConfig, spec: DataSpec) -> tuple[nn.Module, Account]:
    """Return the net at the chosen size, dense or on its scaffold, and the account of its weights."""
    model = cfg.model
    if cfg.get("budget"):
        return narrow_net(cfg, spec)
    net = net_of(model, spec, model.sizes[model.size])
    if not cfg.scaffold:
        init_weights(net)
        return net, Account.of_dense(net)
    check_rank(net, cfg.scaffold.rank)
    scaffold = scaffold_of(cfg, net)
    if scaffold.family == LEARNED:  # it keeps the values that the net has
        init_weights(net)
    drawn = cfg.trainer.devices == 1 or cfg.trainer.strategy == "ddp"  # by fsdp each process draws its rows
    account = wrap(net, scaffold, keep=list(model.keep), freeze=list(model.freeze), drawn=drawn)
    init_weights(net, drawn=drawn)
    set_fused(net, cfg.fused)
    return net, thaw(net, account) if cfg.get("thaw") else account


def scaffold_of(cfg: DictConfig, net: nn.Module) -> Scaffold:
    """The settings of the net's scaffold, with a rank for each matrix where the ranks are not equal."""
    settings = OmegaConf.to_container(cfg.scaffold, resolve=True)
    by = settings.pop("ranks")
    scaffold = Scaffold(**settings)
    if by == "equal":
        return scaffold
    ranks = share_ranks(net, scaffold, by, keep=list(cfg.model.keep), freeze=list(cfg.model.freeze))
    return replace(scaffold, ranks=ranks)


def thaw(net: nn.Module, account: Account) -> Account:
    """Make W_seed of every adapted layer a trained parameter, and count it so."""
    adapted = {entry.name.removesuffix(".weight") for entry in account.entries if entry.place == "adapt"}
    for name, layer in scaffold_layers(net).items():
        if name in adapted:
            W_seed = layer.W_seed
            del layer.W_seed
            layer.W_seed = nn.Parameter(W_seed.clone())
    entries = [
        replace(entry, trained=entry.trained + entry.frozen, frozen=0) if entry.place == "adapt" else entry
        for entry in account.entries
    ]
    return replace(account, entries=tuple(entries))


def net_of(model: DictConfig, spec: DataSpec, sizes: Mapping[str, Any]) -> nn.Module:
    """Build the plain net at these sizes."""
    return instantiate(model.net, spec.in_shape, spec.out_dim, **sizes, _convert_="all")


def narrow_net(cfg: DictConfig, spec: DataSpec) -> tuple[nn.Module, Account]:
    """Return the widest dense net that has no more parameters than the scaffold trains, and its account.

    Every size that `model.widths` names is cut off at w. The account's `full` is that of the uncut net.
    """
    model, budget = cfg.model, cfg.budget
    sizes = OmegaConf.to_container(model.sizes[model.size])
    widths = model.get("widths")
    if not widths:
        raise ValueError(
            f"mode={cfg.mode} needs to know which sizes of a model are widths, and conf/model names none for "
            "this one. Add widths: [KEY, …] to its file."
        )
    with torch.device("meta"):
        net = net_of(model, spec, sizes)
        check_rank(net, budget.rank)
        scaffold = Scaffold(rank=budget.rank, bias=budget.bias)
        target = wrap(net, scaffold, keep=list(budget.keep), freeze=list(budget.freeze))

        def count(width: int) -> int:
            return sum(p.numel() for p in net_of(model, spec, capped(sizes, widths, width)).parameters())

        width = bisect_right(range(1, largest(sizes, widths) + 1), target.trainable, key=count)
    if width == 0:
        raise ValueError(
            f"No net of this depth has as few as {target.trainable:,} parameters. Type a larger rank."
        )
    narrow = net_of(model, spec, capped(sizes, widths, width))
    init_weights(narrow)
    return narrow, replace(Account.of_dense(narrow), full=target.full)


def capped(sizes: Mapping[str, Any], widths: Collection[str], width: int) -> dict[str, Any]:
    """The sizes, with no width above `width`."""

    def cap(value: int | Sequence[int]) -> int | list[int]:
        return [min(each, width) for each in value] if isinstance(value, Sequence) else min(value, width)

    return {key: cap(value) if key in widths else value for key, value in sizes.items()}


def largest(sizes: Mapping[str, Any], widths: Collection[str]) -> int:
    """Return the largest of the sizes that `widths` names."""
    return max(
        each for key in widths for each in (sizes[key] if isinstance(sizes[key], Sequence) else [sizes[key]])
    )


def check_rank(net: nn.Module, rank: int) -> None:
    """Raise ValueError for a rank above every dimension of the net's matrices, before memory is allocated."""
    matrices = [parameter for parameter in net.parameters() if parameter.dim() > 1]
    largest = max((max(each.shape[0], each.numel() // each.shape[0]) for each in matrices), default=rank)
    if rank > largest:
        raise ValueError(
            f"rank={rank} is beyond every dimension of this model, of which the largest is {largest}. "
            "From min(in, out) on a higher rank adds nothing; type a smaller one, or mode=baseline."
        )


def init_weights(net: nn.Module, *, drawn: bool = True) -> None:
    """Initialise a net that was built on the meta device, unless the meta device is the default.

    Called after `wrap`, so that no dense weight is made that a scaffold replaces.
    """
    if hasattr(net, "start") and torch.get_default_device().type != "meta":
        materialize(net, start=net.start, drawn=drawn)


def account_of(cfg: DictConfig) -> Account:
    """Return the account of the net, built on the meta device; no data are read."""
    return on_meta(cfg)[1]


def on_meta(cfg: DictConfig) -> tuple[nn.Module, Account]:
    """Return the net on the meta device and its account; no data are read."""
    spec = instantiate(cfg.data).spec
    with torch.device("meta"):
        return build(cfg, spec)
