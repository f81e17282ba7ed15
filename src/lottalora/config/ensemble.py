"""What the members of an ensemble have in common, and which settings an ensemble cannot have."""

from typing import Any

from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.messages import flatten

OWN = ("seed", "scaffold.seed", "scaffold.family", "scaffold.parameters", "scaffold.alpha", "optimizer.lr")
OWN_AS_TYPED = "seed, backbone_seed, init, alpha or optimizer.lr"
ALLOWED = {  # key → the values that an ensemble can have; None: also where there is no such key
    "resample": (None,),
    "logger._target_": (None,),
    "scaffold.dropout": (None, 0),
    "scaffold.dora": (None, False),
    "task.average": (None,),
    "trainer.accumulate": (1,),
    "trainer.average": (None,),
    "trainer.precision": ("32-true", "auto"),
    "trainer.devices": (1,),
}


def common_settings(plain: dict) -> dict[str, Any]:
    """All of `digest_config` that can change a score, key → value, less what members may differ in."""
    flat = flatten(plain)
    own = tuple(f"{key}." for key in OWN)
    return {key: value for key, value in flat.items() if key not in OWN and not key.startswith(own)}


def check_ensemble(cfg: DictConfig) -> None:
    """Raise ValueError for settings that an ensemble cannot have, all in one line."""
    found = {
        key: value for key, known in ALLOWED.items() if (value := OmegaConf.select(cfg, key)) not in known
    }
    if cfg.trainer.accelerator == "gpu" or (cfg.trainer.accelerator == "auto" and has_gpu()):
        found["trainer.accelerator"] = cfg.trainer.accelerator
    if found:
        words = ", ".join(f"{key}={short(value)}" for key, value in found.items())
        raise ValueError(
            f"An ensemble trains on the CPU, in float32, and cannot have {words}. Leave that out, or type "
            "ensemble=false."
        )


def has_gpu() -> bool:
    """Return whether PyTorch sees a GPU; imports it."""
    import torch

    return torch.cuda.is_available()


def short(value: object) -> str:
    """A value as one word: a section of several settings as an ellipsis."""
    return "…" if OmegaConf.is_config(value) else str(value).lower()
