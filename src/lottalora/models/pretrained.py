"""Learned backbones of other classes under the names of ours: DINOv2 as our ViT, BERT as our DistilBert.

Both compute the same function with fewer parts, so their weights can be folded into ours:

- DINOv2 scales each branch by a vector λ (LayerScale): λ ⊙ (W x + b) = (diag(λ) W) x + λ ⊙ b.
- BERT adds the embedding of segment 0 to every token, as our position embeddings do.

Letters: D width, T tokens of the position table.
"""

from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch import nn
from torch.nn import functional as F

KINDS = ("weight", "bias")
OTHER = "Name another one with model.net.weights, or choose another model.size."


def load_dinov2(body: nn.Module, folder: Path, *, layers: int, tokens: int) -> None:
    """Fill the body of a ViT with a DINOv2 of its size, its positions interpolated to `tokens`.

    Raises:
        FileNotFoundError: the folder has no model.safetensors.
        ValueError: the file is damaged, or of another class or size.
    """
    path = folder / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(
            f"The learned DINOv2 is not at {path}. Put the file of facebook/dinov2-small there, "
            "or choose model=vit_random, which starts at random and needs no file."
        )
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}). Download it anew.") from error
    fill(body, dinov2_as_vit, state, folder, (layers, tokens))


def dinov2_as_vit(state: Mapping[str, Tensor], layers: int, tokens: int) -> dict[str, Tensor]:
    """Return the weights of transformers' Dinov2Model under the names of ViTModel.

    Args:
        state: of Dinov2Model.
        layers: blocks.
        tokens: class token and patches of our image; the positions are interpolated to them.

    Source: Oquab et al. 2023, https://arxiv.org/abs/2304.07193
    """
    made = {
        "embeddings.cls_token": state["embeddings.cls_token"],
        "embeddings.position_embeddings": resized(state["embeddings.position_embeddings"], tokens),
    }
    for kind in KINDS:
        patches = f"embeddings.patch_embeddings.projection.{kind}"
        made |= {patches: state[patches], f"layernorm.{kind}": state[f"layernorm.{kind}"]}
    for number in range(layers):
        ours, theirs = f"layers.{number}", f"encoder.layer.{number}"
        names = {
            "layernorm_before": "norm1",
            "attention.q_proj": "attention.attention.query",
            "attention.k_proj": "attention.attention.key",
            "attention.v_proj": "attention.attention.value",
            "attention.o_proj": "attention.output.dense",
            "layernorm_after": "norm2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        }
        for kind in KINDS:
            made |= {f"{ours}.{name}.{kind}": state[f"{theirs}.{names[name]}.{kind}"] for name in names}
        for name, scale in {"attention.o_proj": "layer_scale1", "mlp.fc2": "layer_scale2"}.items():
            factor = state[f"{theirs}.{scale}.lambda1"]  # (D,)
            made[f"{ours}.{name}.weight"] = factor[:, None] * made[f"{ours}.{name}.weight"]
            made[f"{ours}.{name}.bias"] = factor * made[f"{ours}.{name}.bias"]
    return made


def resized(positions: Tensor, tokens: int) -> Tensor:
    """Interpolate DINOv2's positions, (1, T, D), to a square of `tokens` − 1 patches, as Dinov2Model does."""
    if positions.shape[1] == tokens:
        return positions
    cls, grid = positions[:, :1], positions[:, 1:]
    before, after = (round((count - 1) ** 0.5) for count in (positions.shape[1], tokens))
    grid = grid.transpose(1, 2).unflatten(2, (before, before))  # (1, D, side, side)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)


def bert_as_distilbert(state: Mapping[str, Tensor], layers: int, longest: int) -> dict[str, Tensor]:
    """Return the weights of transformers' BertModel under the names of our DistilBert; no pooler.

    Args:
        state: of BertModel.
        layers: blocks.
        longest: positions that are kept, the first ones.

    Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805
    """
    segment = state["embeddings.token_type_embeddings.weight"][0]  # (D,)
    positions = state["embeddings.position_embeddings.weight"][:longest] + segment
    made = {
        "embeddings.word_embeddings.weight": state["embeddings.word_embeddings.weight"],
        "embeddings.position_embeddings.weight": positions,
    }
    made |= {f"embeddings.LayerNorm.{kind}": state[f"embeddings.LayerNorm.{kind}"] for kind in KINDS}
    names = {
        "attention.q_lin": "attention.self.query",
        "attention.k_lin": "attention.self.key",
        "attention.v_lin": "attention.self.value",
        "attention.out_lin": "attention.output.dense",
        "sa_layer_norm": "attention.output.LayerNorm",
        "ffn.lin1": "intermediate.dense",
        "ffn.lin2": "output.dense",
        "output_layer_norm": "output.LayerNorm",
    }
    for number in range(layers):
        ours, theirs = f"transformer.layer.{number}", f"encoder.layer.{number}"
        for kind in KINDS:
            made |= {f"{ours}.{name}.{kind}": state[f"{theirs}.{names[name]}.{kind}"] for name in names}
    return made


def fill(
    net: nn.Module,
    convert: Callable[[Mapping[str, Tensor], int, int], dict[str, Tensor]],
    state: Mapping[str, Tensor],
    folder: Path,
    size: tuple[int, int],
) -> None:
    """Copy the converted weights into all parameters of `net` but the head's.

    Args:
        net: whose parameters are filled.
        convert: from the file's names to those of `net`.
        state: as read from the file.
        folder: for messages.
        size: blocks and positions of `net`.

    Raises:
        ValueError: the state is of another class or size.
    """
    needed = {name: value.shape for name, value in net.state_dict().items() if not name.startswith("head.")}
    try:
        weights = convert(state, *size)
        wrong = [name for name in needed if weights[name].shape != needed[name]]
    except KeyError as error:
        raise ValueError(f"{folder} holds another model: it has no {error.args[0]}. {OTHER}") from error
    if wrong or any(name.startswith(f"encoder.layer.{size[0]}.") for name in state):
        what = f"{wrong[0]} has another shape" if wrong else f"it has more than {size[0]} blocks"
        raise ValueError(f"{folder} holds another model: {what}. {OTHER}")
    net.load_state_dict(weights, strict=False)
