r"""A PEFT folder: A and B as a LoRA over the dense base that lies beside them in `base/`.

.. math:: h = W_{base}\, x + \frac{\alpha}{r} B A x, \qquad W_{base} = \beta W_{seed}

The base holds all else that was trained: heads, norms, biases, β.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch import nn

from lottalora.artifacts.export import hugging_face
from lottalora.artifacts.export import state_dict
from lottalora.artifacts.export.model import Model
from lottalora.scaffold import LottaWeight
from lottalora.scaffold import merge
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.backbone import scaffold_layers

BASE = "base"
STATE = "model.safetensors"
SUPPORTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def write(model: Model, out: Path) -> None:
    """Write the base to `out`/base, as transformers' folder or as a state dict, and the LoRA to `out`.

    Raises:
        ValueError: a layer computes more than W x + s B A x, or PEFT does not know its kind.
        ModuleNotFoundError: peft is missing.
    """
    import peft

    layers = adapted(model.net)
    parts = {name: (layer.A.detach().clone(), layer.B.detach().clone()) for name, layer in layers.items()}
    scale, rank = common(layers)
    for layer in layers.values():
        nn.init.zeros_(layer.B)
    merge(model.net)
    refuse_other_kinds(model.net, layers)
    base = write_base(model, out / BASE)
    names = {name: name_in_base(name, model) for name in parts}
    config = peft.LoraConfig(r=rank, lora_alpha=scale * rank, target_modules=list(names.values()))
    wrapped = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, (A, B) in parts.items():
            layer = wrapped.base_model.model.get_submodule(names[name])
            for held, given in ((layer.lora_A, A), (layer.lora_B, B)):
                held["default"].weight.copy_(given.view_as(held["default"].weight))
    wrapped.save_pretrained(out, save_embedding_layers=False)


def output(model: Model, out: Path) -> Tensor:
    """The output of the base under the LoRA, both read from the folder."""
    import peft

    base = read_base(model, out / BASE)
    wrapped = peft.PeftModel.from_pretrained(base, out).eval()
    if model.name in hugging_face.CLASSES:
        return hugging_face.logits(model, wrapped)
    return model.architecture.call(wrapped, *model.inputs)


def adapted(net: nn.Module) -> dict[str, LottaLayer]:
    """The layers with A and B, by name; raise ValueError for what a LoRA cannot say."""
    found = {}
    for name, layer in scaffold_layers(net).items():
        if not isinstance(layer, LottaLayer) or getattr(layer, "A", None) is None:
            continue
        options = layer.record().options
        if options or isinstance(layer, LottaWeight):
            reason = f"the option {options[0]}" if options else "a weight that another module reads"
            raise ValueError(f"Layer {name!r} has {reason}, which no LoRA has. Use --to state_dict.")
        found[name] = layer
    if not found:
        raise ValueError("This artifact has no adapters, so there is no LoRA. Use --to state_dict.")
    return found


def common(layers: dict[str, LottaLayer]) -> tuple[float, int]:
    """(s, r), which all layers of one call of wrap share."""
    ((scale, rank),) = {(layer.adapter.scale, layer.A.shape[0]) for layer in layers.values()}
    return scale, rank


def refuse_other_kinds(net: nn.Module, names: dict[str, LottaLayer]) -> None:
    """Raise ValueError for a merged layer that PEFT has no LoRA for."""
    for name in names:
        kind = type(net.get_submodule(name))
        if kind not in SUPPORTED:
            raise ValueError(f"PEFT has no LoRA for layer {name!r}, a {kind.__name__}. Use --to state_dict.")


def name_in_base(name: str, model: Model) -> str:
    """The name of a layer of ours in the base."""
    return hugging_face.renamed(name, model.name) if model.name in hugging_face.CLASSES else name


def write_base(model: Model, folder: Path) -> nn.Module:
    """Write the merged net, and return the model that PEFT will wrap."""
    if model.name in hugging_face.CLASSES:
        base = hugging_face.theirs_of(model, model.net)
        base.save_pretrained(folder)
        return base
    folder.mkdir(parents=True)
    state_dict.write_state(model.net, folder / STATE)
    return model.net


def read_base(model: Model, folder: Path) -> nn.Module:
    """The base as it was written."""
    if model.name in hugging_face.CLASSES:
        return hugging_face.read(model, folder)
    plain = model.plain()
    plain.load_state_dict(state_dict.load_file(folder / STATE))
    return plain
