"""Check a mode: what it would ignore, what it contradicts, and on which devices it runs."""

from collections.abc import Iterable
from collections.abc import Mapping

from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.results.command import OF_SCAFFOLD
from lottalora.results.schema import DIGEST_DEFAULTS

OF_MODE = ("scaffold", "resample", "budget", "thaw")  # sections that the files of conf/mode fill
FREE = ("resample.scaffolds", "resample.fresh")  # what of them may be typed
DRAW = ("init", "backbone_seed")
ADAPTER = (
    "rank", "adapter.rslora", "adapter.A_init", "adapter.B_init", "adapter.dropout", "adapter.dora",
    "adapter.ranks",
)  # fmt: skip
BETA = ("adapter.train_beta",)
NORM = ("adapter.residual", "adapter.layer_norm")
IGNORED = (  # modes, why they would ignore these keys, the keys, the mode that heeds them
    (("head",), "has no adapter", ADAPTER, "scaffold"),
    (("probe",), "has no adapter", ADAPTER, "lora"),
    (("full_from_scaffold",), "has no adapter", ADAPTER, "thawed"),
    (("full_from_scaffold",), "has no β", BETA, "thawed"),
    (("zero",), "sets every W_seed to 0", DRAW, "scaffold"),
    (("lora", "probe"), "keeps the weights that the model has", DRAW, "scaffold"),
    (("lora", "probe"), "has no β", BETA, "scaffold"),
    (("small",), "is a dense net", (*DRAW, *ADAPTER[1:], *BETA, *NORM), "scaffold"),
)
# Values that are as good as none: nothing is asked for that the mode has not.
NOTHING = {f"adapter.{key}": value for key, value in DIGEST_DEFAULTS["scaffold"].items()} | {
    "rank": 0, "adapter.train_beta": False,
}  # fmt: skip


def check_of_mode(typed: Iterable[str]) -> None:
    """Refuse what the mode or the file of a model fills: the run would be another than it is called.

    Args:
        typed: the overrides, such as rank=8.
    """
    for override in typed:
        key = override.partition("=")[0]
        if key.partition(".")[0] in OF_MODE and key not in FREE:
            raise ValueError(f"{override!r} is for mode= to set. {instead_of(key)}")
        if key == "model.widths":
            raise ValueError(
                f"{override!r} would make mode=small another net under the same name. Leave it out, or "
                "change it in the model's file in conf/model."
            )


def instead_of(key: str) -> str:
    """What to type in place of a key that is for a mode to set."""
    section, _, option = key.partition(".")
    if section in ("resample", "thaw") or not option:
        return "Leave it out, and type mode=NAME."
    first = option.partition(".")[0]
    return f"Type {OF_SCAFFOLD.get(first, f'adapter.{first}')}=VALUE."


def check_mode(cfg: DictConfig, typed: Mapping[str, str]) -> None:
    """Refuse a mode beside a choice that it would ignore or cannot have.

    Args:
        cfg: the composed config.
        typed: key → override, such as rank → rank=8.
    """
    if ("groups" in cfg.data) != (cfg.mode == "gated"):
        raise ValueError(
            "data=gated_mnist gives each of several scaffolds its digits, and mode=gated trains them: they "
            "go together. Type data=gated_mnist mode=gated."
        )
    check_ignored(cfg, typed)
    if cfg.mode not in ("baseline", "head", "probe") and cfg.rank == 0:
        instead = "probe" if cfg.mode == "lora" else "head"
        raise ValueError(
            f"mode={cfg.mode} with rank=0 would train no adapter. "
            f"Type mode={instead} for that, or a rank of 1 or more."
        )
    if cfg.remove_scaffold and not cfg.scaffold:
        raise ValueError(f"mode={cfg.mode} has no scaffold to remove. Leave out remove_scaffold.")
    check_kept(cfg)
    check_strategy(cfg)
    check_resample(cfg)
    check_thaw(cfg)


def check_ignored(cfg: DictConfig, typed: Mapping[str, str]) -> None:
    """Refuse what the mode would ignore: the run would be a copy of another, some under a digest of its own.

    A baseline ignores all of them and passes, so that sweeps may hold it; so does α where nothing is scaled.
    """
    for modes, why, keys, instead in IGNORED:
        if cfg.mode not in modes:
            continue
        for key, override in typed.items():
            if key in keys and asks(cfg, key) or key.startswith("init.") and "init" in keys:
                raise ValueError(
                    f"mode={cfg.mode} {why}, so it contradicts {override}. "
                    f"Leave out {key}, or type mode={instead}."
                )


def asks(cfg: DictConfig, key: str) -> bool:
    """Whether the value of a key asks for something."""
    return key not in NOTHING or OmegaConf.select(cfg, key) != NOTHING[key]


def check_kept(cfg: DictConfig) -> None:
    """Refuse an artifact, or kept weights, of a run without one model on one frozen scaffold, held whole."""
    several = not cfg.scaffold or cfg.mode == "gated" or cfg.get("thaw")
    if cfg.artifact and (several or cfg.ensemble or cfg.trainer.strategy == "fsdp"):
        what = f"mode={cfg.mode}" if several else "ensemble=true" if cfg.ensemble else "trainer.strategy=fsdp"
        raise ValueError(
            f"artifact=true saves a model on one frozen scaffold, held whole; {what} has none. "
            "Leave out artifact."
        )
    if cfg.keep_weights and (cfg.ensemble or cfg.trainer.strategy == "fsdp"):
        what = "ensemble=true" if cfg.ensemble else "trainer.strategy=fsdp"
        raise ValueError(f"keep_weights=true needs one net, held whole; {what} has none. Leave one out.")


def check_resample(cfg: DictConfig) -> None:
    """Several scaffolds for each step: their number, and on how many devices."""
    if not OmegaConf.is_dict(cfg.resample):
        return
    count = cfg.resample.scaffolds
    if type(count) is not int or count < 1:
        raise ValueError(f"resample.scaffolds must be a whole number, 1 or more, got {count!r}.")
    if cfg.resample.fresh not in (True, False):
        raise ValueError(f"resample.fresh must be true or false, got {cfg.resample.fresh!r}.")
    if cfg.trainer.devices > 1:
        raise ValueError(
            f"mode={cfg.mode} changes the scaffold within a step and runs on one device, got "
            f"trainer.devices={cfg.trainer.devices}. Type trainer.devices=1."
        )


def check_thaw(cfg: DictConfig) -> None:
    """A W_seed that is trained is one tensor on each device; full training leaves nothing frozen."""
    if cfg.mode == "full_from_scaffold" and cfg.model.freeze:
        patterns = ", ".join(cfg.model.freeze)
        raise ValueError(
            f"mode=full_from_scaffold trains every weight, and this model freezes {patterns}. Type "
            "model.freeze=[], and model.keep=[…] with what no scaffold can replace, such as embeddings."
        )
    if cfg.get("thaw") and cfg.trainer.devices > 1 and cfg.trainer.strategy == "fsdp":
        raise ValueError(
            f"trainer.strategy=fsdp shares out frozen weights, and mode={cfg.mode} trains them. "
            "Type trainer.strategy=ddp."
        )


def check_strategy(cfg: DictConfig) -> None:
    """Raise ValueError for fsdp without a scaffold that is drawn: each process draws its rows of W_seed."""
    if cfg.trainer.devices == 1 or cfg.trainer.strategy != "fsdp":
        return
    if not cfg.scaffold:
        raise ValueError(
            f"trainer.strategy=fsdp shares out frozen weights, and mode={cfg.mode} has none. "
            "Type trainer.strategy=ddp."
        )
    if cfg.scaffold.family == "learned":  # the record of their values needs all of them in one process
        raise ValueError(
            f"trainer.strategy=fsdp shares out weights that are drawn from a seed, and mode={cfg.mode} keeps "
            "those that the model has. Type trainer.strategy=ddp."
        )
