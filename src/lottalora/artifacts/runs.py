"""The suite's artifacts: its models as registered architectures, and the file that a run leaves."""

import importlib
import logging
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn

from lottalora.artifacts.files import ARTIFACTS
from lottalora.data.spec import DataSpec
from lottalora.data.splits import Splits
from lottalora.results import rows
from lottalora.scaffold import ARCHITECTURES
from lottalora.scaffold import materialize
from lottalora.scaffold import register_architecture
from lottalora.scaffold import save
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.artifact.precision import bytes_in
from lottalora.scaffold.artifact.precision import compressible
from lottalora.scaffold.artifact.state import state_names

TARGETS = {  # name of the architecture → what builds it; a file names the first, never the second
    "cfc": "lottalora.models.cfc.CfC",
    "decision_transformer": "lottalora.models.decision_transformer.DecisionTransformer",
    "distilbert": "lottalora.models.distilbert.distilbert",
    "gcn": "lottalora.models.gcn.GCN",
    "gin": "lottalora.models.gin.GIN",
    "gpt": "lottalora.models.gpt.GPT",
    "mlp": "lottalora.models.mlp.MLP",
    "resnet": "lottalora.models.resnet.ResNet",
    "vit": "lottalora.models.vit.vit",
}
BATCHES = {  # of models that take more than a tensor: module in data.batches and class
    "cfc": ("batch", "Sequences"),
    "decision_transformer": ("batch", "Windows"),
    "distilbert": ("batch", "Texts"),
    "gin": ("graph", "Molecules"),
}
WITHOUT_FILES: dict[str, dict[str, Any]] = {  # arguments that name files of learned weights
    "distilbert": {"weights": None, "root": "", "repository": None},
    "vit": {"weights": None, "root": ""},
}
SCORES = {"test": "score", "validation": "validation_score"}  # of a row
PROVENANCE = (
    "digest",
    "model",
    "size",
    "data",
    "mode",
    "seed",
    "recipe",
    "data_fingerprint",
    "commit",
    "finished",
)
PROBES = 4  # examples of the test part, stored with the outputs for them
TOKENS = 8  # of a text
NODES = 64  # of a large graph, stored as a graph of their own
SMALLER = "Type a lower rank, save.precision=int8 or int4, or save.zstandard=true."
log = logging.getLogger(__name__)


def register_models() -> None:
    """Let artifacts name the nine models of the suite."""
    for name in TARGETS:
        if name not in ARCHITECTURES:
            start = _start if name == "gpt" else None
            register_architecture(name, _builder(name), call=_caller(name), start=start)


def save_run(
    net: nn.Module, spec: DataSpec, splits: Splits, row: dict[str, Any], results: Path
) -> dict[str, str]:
    """Write the artifact of a finished run if its config asks for one; return the row's entry, or nothing.

    Args:
        net: with the weights of its best epoch.
        spec, splits: the data, of which the first test examples become the stored probe.
        row: what was measured. A run that diverged leaves no artifact.
        results: the results folder; a file of the same run is replaced.
    """
    config = row["config"]
    if not config["artifact"] or row["diverged"]:
        return {}
    register_models()
    name = architecture_of(config["model"]["net"]["_target_"])
    path = results / ARTIFACTS / f"{rows.run_name(row)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = {f"{part} {row['metric']}": row[key] for part, key in SCORES.items()}
    if "artifact" in row["arms"]:  # of these very bits; the validation score is not
        scores = {f"test {row['metric']}": row["arms"]["artifact"]}
    settings = {key: value for key, value in config["save"].items() if key != "max_bytes"}
    save(
        net.to("cpu"),
        path,
        architecture=(name, _arguments(name, spec, config["model"])),
        probe=_probe(name, splits),
        metrics={key: value for key, value in scores.items() if value is not None},
        provenance={key: str(row[key]) for key in PROVENANCE},
        store=config["scaffold"]["family"] == LEARNED,
        overwrite=True,
        **settings,
    )
    size, largest = path.stat().st_size, config["save"]["max_bytes"]
    if largest is not None and size > largest:
        path.unlink()
        log.error("no artifact: it has %s bytes, and save.max_bytes=%s. %s", f"{size:,}", largest, SMALLER)
        return {}
    log.info("artifact: %s, %s bytes. Next: lottalora inspect %s", path, f"{size:,}", path)
    return {"artifact": path.name}


def architecture_of(target: str) -> str:
    """The name by which artifacts know a model of the suite.

    Raises:
        ValueError: they know none that this builds.
    """
    for name, known in TARGETS.items():
        if known == target:
            return name
    raise ValueError(
        f"artifact=true knows no model that {target} builds: name it in TARGETS of lottalora.artifacts.runs, "
        "or type artifact=false."
    )


def refuse_what_cannot_fit(net: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuse a run, before its training, whose artifact will be above save.max_bytes.

    Its tensors alone are counted. How far they shrink as a Zstandard frame is known at the end alone.

    Args:
        net: on its scaffold.
        settings: the section `save` of the config.

    Raises:
        ValueError: the tensors do not fit.
    """
    largest = settings["max_bytes"]
    if largest is None or settings["zstandard"]:
        return
    size = tensor_bytes(net, settings["precision"])
    if size > largest:
        raise ValueError(
            f"The artifact would hold {size:,} bytes of tensors, and save.max_bytes={largest}. {SMALLER}"
        )


def tensor_bytes(net: nn.Module, precision: str) -> int:
    """The bytes of all tensors that `save` writes of a net in a precision, tied ones once."""
    matrices = {id(parameter) for parameter in compressible(net).values()}
    held = dict([*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)])
    tensors = {id(held[name]): held[name] for name in state_names(net)}
    return sum(
        bytes_in(tensor.numel(), precision) if key in matrices else tensor.numel() * tensor.element_size()
        for key, tensor in tensors.items()
    )


def _arguments(name: str, spec: DataSpec, model: dict[str, Any]) -> dict[str, Any]:
    """Return the architecture's arguments, without files of learned weights."""
    given = model["net"] | model["sizes"][model["size"]]
    left_out = {"_target_", *WITHOUT_FILES.get(name, ())}
    shape = {"in_shape": list(spec.in_shape), "out_dim": spec.out_dim}
    return shape | {key: value for key, value in given.items() if key not in left_out}


def _builder(name: str) -> Callable[..., nn.Module]:
    def build(**arguments: Any) -> nn.Module:  # noqa: ANN401  plain data
        module, _, attribute = TARGETS[name].rpartition(".")
        net = getattr(importlib.import_module(module), attribute)(**arguments, **WITHOUT_FILES.get(name, {}))
        if hasattr(net, "start") and torch.get_default_device().type != "meta":
            materialize(net, start=net.start)
        return net

    return build


def _start(net: nn.Module, module: nn.Module) -> None:
    """Initialise one module of a net that is built on the meta device."""
    net.start(module)


def _caller(name: str) -> Callable[..., Tensor] | None:
    if name == "gcn":
        return _call_gcn
    if name not in BATCHES:
        return None

    def call(net: nn.Module, *tensors: Tensor) -> Tensor:
        module, batch = BATCHES[name]
        return net(getattr(importlib.import_module(f"lottalora.data.batches.{module}"), batch)(*tensors))

    return call


def _call_gcn(net: nn.Module, smoothed: Tensor, *tensors: Tensor) -> Tensor:
    from lottalora.data.batches.graph import Adjacency
    from lottalora.data.batches.graph import Nodes

    *adjacency, chosen = tensors
    nodes = Nodes(smoothed, Adjacency(*adjacency), chosen)
    nodes.check()
    return net(nodes)


def _probe(name: str, splits: Splits) -> list[Tensor]:
    """The first examples of the test part; of one large graph its first nodes."""
    first = next(iter(splits.test_batches()))[0]
    if name == "gcn":
        smoothed, adjacency, chosen = first.part(NODES, PROBES)
        return [part.cpu() for part in (smoothed, *adjacency, chosen)]
    if name == "gin":
        return [part.cpu() for part in first.part(PROBES)]
    if name == "gpt":  # its output is as long as its vocabulary, for each token
        return [first[:1, :TOKENS].cpu()]
    parts = first if name in BATCHES else [first]
    return [part[:PROBES].cpu() for part in parts]
