"""The weights of finished runs, kept beside their rows, and the nets and data to use them with."""

import functools
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf import OmegaConf
from safetensors.torch import load_file
from safetensors.torch import save
from torch import Tensor
from torch import nn

from lottalora import CONF
from lottalora import build
from lottalora.artifacts.files import WEIGHTS
from lottalora.data.spec import DataSpec
from lottalora.data.splits import Splits
from lottalora.results import rows
from lottalora.results.atomic_write import write_whole
from lottalora.results.rows import Row

TRAINED, START = "trained.", "start."  # what the names in a file begin with
CALLED = ("data", "model", "task")  # sections of a row's config of which something is called
State = dict[str, Tensor]


def start_of(net: nn.Module, cfg: DictConfig) -> State:
    """Copy the weights of a dense net before its training; nothing if they are not kept or have a scaffold.

    What training changes is the difference to them. An adapter starts at a product of 0.
    """
    if not cfg.keep_weights or cfg.scaffold:
        return {}
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


def keep(net: nn.Module, start: State, row: Mapping[str, Any], results: Path) -> dict[str, str]:
    """Write the weights of a finished run if its config asks for them; return the row's entry, or nothing.

    The file is RESULTS/weights/NAME.safetensors. It holds `state_dict()`, so no W_seed, whose seed is in the
    row.

    Args:
        net: with the weights of its best epoch.
        start: from `start_of`.
        row: what was measured. A run that diverged leaves no weights.
        results: the results folder.
    """
    if not row["config"]["keep_weights"] or row["diverged"]:
        return {}
    path = results / WEIGHTS / f"{rows.run_name(row)}.safetensors"
    trained = {f"{TRAINED}{name}": tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    tensors = trained | {f"{START}{name}": tensor for name, tensor in start.items()}
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}  # tied ones, twice
    write_whole(path, save(whole, metadata={"digest": row["digest"]}))
    return {"weights": path.name}


class Kept:
    """The weights under one results folder, and the nets and test parts that belong to them.

    Args:
        results: the folder; rows name the files in its `weights/`.
        places: where the files of the data lie, by the key of the config, where that is not the config's.
    """

    def __init__(self, results: Path, places: Mapping[str, str] | None = None) -> None:
        self.results = results
        self.places = dict(places or {})
        self.read: dict[str, tuple[DataSpec, Splits]] = {}  # data that were read, by their config

    def has(self, row: Row) -> bool:
        """Whether the weights of a row are here."""
        return self.path(row).is_file()

    def path(self, row: Row) -> Path:
        """The file of a row's weights; one that does not exist for a row without."""
        return self.results / WEIGHTS / row.get("weights", "none")

    def state(self, row: Row, part: str = TRAINED) -> State:
        """The trained weights of a row, or those that its dense net started from."""
        tensors = load_file(self.path(row))
        return {name.removeprefix(part): each for name, each in tensors.items() if name.startswith(part)}

    def net(self, row: Row) -> nn.Module:
        """The net of a row with its trained weights, ready to be evaluated."""
        net = self.fresh(row, row["seed"])
        net.load_state_dict(self.state(row))
        return net

    def fresh(self, row: Row, seed: int) -> nn.Module:
        """The net of a row before training, started from this seed."""
        cfg = config_of(row)
        torch.manual_seed(seed)
        net, _ = build.build(cfg, self.data(row)[0])
        return net.eval()

    def data(self, row: Row) -> tuple[DataSpec, Splits]:
        """The data of a row.

        Raises:
            ValueError: the data that are found here are not those of the row, or its config would call what
                no file of conf/ names.
        """
        refuse_other_targets(row)
        section = row["config"]["data"]
        key = repr(sorted(section.items(), key=str))
        if key not in self.read:
            data = instantiate(section | places_of(row) | self.places)
            splits = data.read()
            self.read[key] = data.spec, splits
        spec, splits = self.read[key]
        if splits.fingerprint() != row["data_fingerprint"]:
            raise ValueError(
                f"The {row['data']} found here is not what the run {row['digest']} was trained on: its "
                "fingerprint differs. Set LOTTALORA_DATA to the folder that the run had."
            )
        return spec, splits


def refuse_other_targets(row: Row) -> None:
    """Refuse a row, which may be a stranger's, whose config would have Hydra call any function it likes.

    Raises:
        ValueError: it names what no file of conf/data, conf/model and conf/task does.
    """
    named = list(targets_in([row["config"].get(group) for group in CALLED]))
    foreign = [each for each in named if not isinstance(each, str) or each not in known_targets()]
    if foreign:
        raise ValueError(
            f"The row of the run {row['digest']} would call {foreign[0]!r}, which no file of conf/ names. "
            "Rows may come from others, so it is not called. If it is yours, name it as _target_ in a file "
            f"of {CONF}/data, model or task."
        )


@functools.cache
def known_targets() -> frozenset[str]:
    """What the files of conf/data, conf/model and conf/task call."""
    files = [path for group in CALLED for path in sorted((CONF / group).glob("*.yaml"))]
    plain = [OmegaConf.to_container(OmegaConf.load(path), resolve=False) for path in files]
    return frozenset(str(each) for each in targets_in(plain, references=False))


def targets_in(value: object, *, references: bool = True) -> Iterator[object]:
    """The names under `_target_` at any depth, and the references, which could lead to one."""
    if isinstance(value, str) and references and "${" in value:
        yield value
    if isinstance(value, Mapping) and "_target_" in value:
        yield value["_target_"]
    for each in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from targets_in(each, references=references)


def config_of(row: Row) -> DictConfig:
    """The config of a row, to be built on this machine's CPU."""
    cfg = OmegaConf.create(row["config"])
    cfg.trainer.devices = 1
    return cfg


def places_of(row: Row) -> dict[str, str]:
    """Where the files of a row's data lie on this machine; rows do not say, since they travel."""
    path = CONF / "data" / f"{row['config']['data']['_target_'].split('.')[2]}.yaml"
    paths = OmegaConf.load(CONF / "config.yaml").paths
    whole = OmegaConf.create({"paths": paths, "data": OmegaConf.load(path)})
    return {key: whole.data[key] for key in ("root", "tokenizers") if key in whole.data}
