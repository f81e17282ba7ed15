"""The Vision Transformer, from a random start or with learned weights.

Letters: N images, C channels, H × W pixels, T = 1 + H·W / patch² tokens, D width.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from torch import nn

from lottalora.models.pretrained import load_dinov2
from lottalora.models.torchvision_vit import RANDOM_START
from lottalora.models.torchvision_vit import found
from lottalora.models.torchvision_vit import load_learned

BASE = {"width": 768, "layers": 12, "heads": 12, "mlp": 3072, "patch": 16}  # ViT-B/16


class ViT(nn.Module):
    """Patches and a class token through a pre-norm transformer; a linear head reads the class token.

    q, k, v, o, fc1 and fc2 of each block are linear layers of their own; there is no pooler.

    Args:
        in_shape: (C, H, W) of one image; H = W, a multiple of `patch`.
        out_dim: number of classes.
        width: D.
        layers: blocks.
        heads: of the attention.
        mlp: width of the hidden layer of each block.
        patch: side of a patch in pixels.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; the module is transformers' ViTModel.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        mlp: int,
        patch: int,
    ) -> None:
        super().__init__()
        from transformers import ViTConfig  # takes seconds to import
        from transformers import ViTModel

        channels, side, _ = in_shape
        if side % patch:
            raise ValueError(
                f"data.image_size={side} does not divide into patches of {patch} pixels. "
                f"Type a multiple of {patch}, such as {max(1, round(side / patch)) * patch}."
            )
        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=mlp,
            image_size=side,
            patch_size=patch,
            num_channels=channels,
            layer_norm_eps=1e-6,  # as torchvision's, with which the learned weights were trained
        )
        self.body = ViTModel(config, add_pooling_layer=False)
        self.head = nn.Linear(width, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.body(x).last_hidden_state  # (N, C, H, W) → (N, T, D)
        return self.head(tokens[:, 0])  # (N, D) → (N, out_dim)


def vit(
    in_shape: Sequence[int],
    out_dim: int,
    *,
    width: int,
    layers: int,
    heads: int,
    mlp: int,
    patch: int,
    weights: str | None,
    root: str,
) -> ViT:
    """A ViT at its start: random, or with the learned weights of a file; the head is random in any case.

    Args:
        in_shape, out_dim, width, layers, heads, mlp, patch: as of ViT.
        weights: name of a state dict of torchvision's vit_b_16 (NAME.pth), of a folder with a DINOv2 of this
            size, or None.
        root: the folder that it lies in, or is downloaded to if torchvision publishes it.
    """
    size = {"width": width, "layers": layers, "heads": heads, "mlp": mlp, "patch": patch}
    if weights is not None and not weights.endswith(".pth"):
        net = ViT(in_shape, out_dim, **size)
        if not net.head.weight.is_meta:  # on the meta device weights have no values
            tokens = 1 + (in_shape[1] // patch) ** 2
            load_dinov2(net.body, Path(root) / weights, layers=layers, tokens=tokens)
        return net
    if weights is not None and size != BASE:
        raise ValueError(
            f"The learned weights are those of model.size=base, not of width {width} with {layers} layers. "
            f"Type model.size=base; {RANDOM_START}"
        )
    net = ViT(in_shape, out_dim, **size)
    if weights is not None and not net.head.weight.is_meta:  # on the meta device weights have no values
        load_learned(net.body, found(Path(root) / weights))
    return net
