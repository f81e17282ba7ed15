"""torchvision's learned ViT-B/16: the file, and its weights under our names.

The body is that of our ViT: all but the head.  T tokens, D width.
"""

import hashlib
import re
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.downloads import download_file

PUBLISHED = "https://download.pytorch.org/models/"  # of torchvision: NAME-HASH.pth
RANDOM_START = "model=vit_random starts at random and needs no file."


def found(path: Path) -> Path:
    """The file, downloaded if it is not there, with the content that its name promises.

    PyTorch names its files NAME-HASH.pth, where HASH is how the SHA-256 of the content begins. So the name,
    which is part of a run's digest, says which weights they are on every machine.
    """
    if not path.exists():
        download(path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    promised = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
    if promised is None:
        raise ValueError(
            f"The name of {path} does not say which weights it holds. "
            f"Call it {path.stem}-{content[:8]}.pth: these digits begin its SHA-256."
        )
    if not content.startswith(promised[1]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 begins {content[:8]}, not {promised[1]}. "
            "Delete it and run again to download it anew."
        )
    return path


def download(path: Path) -> None:
    """Download the published weights; raise FileNotFoundError saying where to put them."""
    try:
        download_file(PUBLISHED + path.name, path, hash_prefix=path.stem.rpartition("-")[2])
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The learned weights are not at {path} and could not be downloaded ({error}). "
            f"Put {PUBLISHED}{path.name} there; {RANDOM_START}"
        ) from error


def load_learned(body: nn.Module, path: Path) -> None:
    """Fill the body of a ViT from a file; the head of the file, which has other classes, is left out.

    Raises:
        ValueError: a file that is no state dict, or of another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        renamed = {modern(name): value for name, value in state.items()}
    except Exception as error:  # a wrong file raises whatever its first wrong byte leads to
        raise ValueError(
            f"{path} is no state dict of torchvision's vit_b_16 ({type(error).__name__}). {RANDOM_START}"
        ) from error
    wrong = differences(body, renamed)
    if wrong:
        raise ValueError(f"{path} holds no weights of this ViT: {wrong}. {RANDOM_START}")
    body.load_state_dict(converted(body, renamed))


def modern(name: str) -> str:
    """torchvision's present name of a weight: its published file says linear_1 and linear_2 for 0 and 3."""
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def origins(body: nn.Module) -> dict[str, tuple[str, int | None]]:
    """For each weight of the body: torchvision's name, and which third of that it is, if it is one."""
    names: dict[str, tuple[str, int | None]] = {
        "embeddings.cls_token": ("class_token", None),
        "embeddings.position_embeddings": ("encoder.pos_embedding", None),
    }
    modules = {"embeddings.patch_embeddings.projection": "conv_proj", "layernorm": "encoder.ln"}
    for number in range(len(body.layers)):
        ours, theirs = f"layers.{number}", f"encoder.layers.encoder_layer_{number}"
        modules |= {
            f"{ours}.layernorm_before": f"{theirs}.ln_1",
            f"{ours}.attention.o_proj": f"{theirs}.self_attention.out_proj",
            f"{ours}.layernorm_after": f"{theirs}.ln_2",
            f"{ours}.mlp.fc1": f"{theirs}.mlp.0",
            f"{ours}.mlp.fc2": f"{theirs}.mlp.3",
        }
        for third, letter in enumerate("qkv"):
            for kind in ("weight", "bias"):
                ours_now = f"{ours}.attention.{letter}_proj.{kind}"
                names[ours_now] = (f"{theirs}.self_attention.in_proj_{kind}", third)
    for ours, theirs in modules.items():
        names |= {f"{ours}.{kind}": (f"{theirs}.{kind}", None) for kind in ("weight", "bias")}
    return names


def differences(body: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What of torchvision's weights is missing, unexpected or of another shape; empty if nothing is."""
    needed = {}
    for name, (theirs, third) in origins(body).items():
        shape = tuple(body.get_parameter(name).shape)
        needed[theirs] = shape if third is None else (3 * shape[0], *shape[1:])
    given = {name: tuple(value.shape) for name, value in state.items() if not name.startswith("heads.")}
    needed["encoder.pos_embedding"] = fitting(
        needed["encoder.pos_embedding"], given.get("encoder.pos_embedding", ())
    )
    shapes = [
        f"{name} {given[name]} where {shape} belongs"
        for name, shape in needed.items()
        if name in given and given[name] != shape
    ]
    parts = {
        "missing": sorted(needed.keys() - given.keys()),
        "unexpected": sorted(given.keys() - needed.keys()),
        "of another shape": shapes,
    }
    return "; ".join(f"{what}: {listed(names)}" for what, names in parts.items() if names)


def fitting(needed: tuple[int, ...], given: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of positions that can be used: any square of patches, since it is interpolated."""
    tokens = given[1] if len(given) == 3 else 0
    square = tokens > 1 and round((tokens - 1) ** 0.5) ** 2 == tokens - 1
    return (1, tokens, needed[2]) if square else needed


def listed(names: Sequence[str], most: int = 3) -> str:
    """Join the first names, and count the rest: "a, b, c and 4 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def converted(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the body under our names: in_proj cut into q, k and v, positions fitted to the image."""
    weights = {
        ours: state[theirs] if third is None else state[theirs].chunk(3)[third]
        for ours, (theirs, third) in origins(body).items()
    }
    name = "embeddings.position_embeddings"
    weights[name] = fitted(weights[name], tokens=body.get_parameter(name).shape[1])
    return weights


def fitted(positions: Tensor, *, tokens: int) -> Tensor:
    """Positions (1, T, D) for another number of patches: bicubic, as torchvision's interpolate_embeddings."""
    if positions.shape[1] == tokens:
        return positions
    cls, grid = positions[:, :1], positions[:, 1:]  # (1, 1, D), (1, T − 1, D)
    before, after = (round((count - 1) ** 0.5) for count in (positions.shape[1], tokens))
    grid = grid.transpose(1, 2).unflatten(2, (before, before))  # (1, D, side, side)
    grid = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=True)
    return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)
