"""A control without training: the nearest neighbour by the class token of a ViT, on Flowers-102.

    python scripts/control_flowers102.py model=vit model.size=dinov2_s data.image_size=112

The words are those of run.py. Printed is the share of the validation images whose nearest training image, by
the cosine of the class tokens, shows the same flower. Training images are cropped and flipped, and not mixed.
"""

import sys
from pathlib import Path

import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor
from torch import nn
from torch.nn import functional as F

import lottalora.config.check  # noqa: F401  # the functions that config files use
from lottalora.build import build

CONF = Path(__file__).resolve().parents[1] / "conf"
PLAIN = [f"data.augmentation.{name}=0" for name in ("mix", "operations", "erasing")]


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides=["data=flowers102", "mode=baseline", *PLAIN, *sys.argv[1:]])
    torch.manual_seed(cfg.seed)
    data = instantiate(cfg.data)
    splits = data.read()
    net, _ = build(cfg, data.spec)
    body = net.body.eval()
    known, flowers = tokens(body, splits.train_batches(cfg.seed))
    asked, answers = tokens(body, splits.validation_batches())
    right = flowers[(asked @ known.T).argmax(1)] == answers
    marked = " of made images, not of flowers" if cfg.data.sample else ""
    print(f"nearest neighbour: {100 * right.float().mean():.1f} % of {len(answers)}{marked}")


@torch.inference_mode()
def tokens(body: nn.Module, batches) -> tuple[Tensor, Tensor]:
    """The class tokens of all images, (n, D), of length 1, and their classes, (n,)."""
    found, classes = [], []
    for images, labels in batches:
        found.append(F.normalize(body(images).last_hidden_state[:, 0], dim=1))
        classes.append(labels.argmax(1) if labels.dim() > 1 else labels)  # of training images, shares
    return torch.cat(found), torch.cat(classes)


if __name__ == "__main__":
    main()
