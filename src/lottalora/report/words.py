"""Proper words for what configs and rows call by keys: scaffolds, options, changes of a recipe."""

import re
from collections.abc import Mapping

# Family or preset of W_seed → its name; others are their key with spaces.
SCAFFOLDS = {
    "normal_0.1": "N(0, 0.1²)",
    "kaiming_normal": "Kaiming normal",
    "kaiming_uniform": "Kaiming uniform",
    "xavier_normal": "Xavier normal",
    "xavier_uniform": "Xavier uniform",
    "cauchy": "Cauchy",
    "laplace": "Laplace",
    "gaussian_mixture": "Gaussian mixture",
    "student_t": "Student's t",
    "sparse_erdos_renyi": "sparse Erdős–Rényi",
    "quantized_16bit": "quantized to 16 bits",
    "quantized_8bit": "quantized to 8 bits",
    "quantized_4bit": "quantized to 4 bits",
    "quantized_2bit": "quantized to 2 bits",
}
# Setting → what to call it; with {} where its value goes. KEY=VALUE stands for one value of a setting.
SETTINGS = {
    "A_init": "A drawn as {}",
    "B_init": "B drawn as {}",
    "B_init=kaiming": "B drawn by Kaiming",
    "alpha": "α = {}",
    "dora": "DoRA",
    "dropout": "adapter dropout {}",
    "fresh=False": "fixed ones",
    "layer_norm": "LayerNorm",
    "residual": "residual",
    "ranks=first": "larger ranks in the first matrices",
    "ranks=last": "larger ranks in the last matrices",
    "ranks=spectral": "larger ranks where ‖W_seed‖₂ is",
    "rslora": "rsLoRA",
    "scaffolds": "{} scaffolds",
    "std": "σ = {}",
    "train_beta=False": "β fixed at 1",
    "trainable": "{} trained",
    # readings of the families of Table 13
    "a": "gain for a slope of {}",
    "clip": "cut off at {} σ",
    "clip=redrawn": "redrawn within 2 σ",
    "scaling=literal": "unscaled",
    "scaling=multiplied": "times 1/√fan_in",
    "scaling=standardised": "standardised",
    # where the adapters are
    "place=all": "adapters in every layer",
    "place=attention": "adapters in attention",
    "place=body_and_head": "adapted head",
    "place=body_and_head_with_bias": "adapted head with bias",
    "place=mlp": "adapters in the MLPs, attention dense",
    "place=mlp_alone": "adapters in the MLPs, attention frozen",
    "place=values": "adapters of values and outputs, queries and keys frozen",
    # changes of a recipe
    "data.augmentation.erasing=0": "no random erasing",
    "data.augmentation.mix=0": "no mixing of images",
    "data.augmentation.operations=0": "no random operations",
    "data.batch_size": "batches of {}",
    "data.features=structural": "structural features",
    "data.hold_out=False": "no part held out",
    "data.id": "episodes of {}",
    "data.image_size": "images of {} pixels",
    "data.max_length": "texts of {} tokens",
    "data.tokens": "{} tokens of text",
    "data.vocabulary": "a vocabulary of {}",
    "epochs": "{} epochs",
    "epochs=1": "1 epoch",
    "model.attention_dropout": "attention dropout {}",
    "model.dropout": "dropout {}",
    "optimizer.lr": "learning rate {}",
    "optimizer.weight_decay": "weight decay {}",
    "recipe_version": "version {}",
    "schedule.T_max": "cosine over {} epochs",
    "schedule.T_max=1": "cosine over 1 epoch",
    "steps.accumulate": "gradients of {} batches added up",
    "steps.accumulate=1": "a step for each batch",
    "steps.average=ema": "a moving average of the weights",
    "steps.average=swa": "the mean of the last weights",
    "steps.clip": "gradients clipped at {}",
    "steps.decay": "weight decay of {}",
    "steps.decay=all_but_beta": "no weight decay of β",
    "steps.decay=matrices": "weight decay of matrices alone",
    "steps.min_delta": "improvements below {} not counted",
    "steps.patience": "patience {}",
    "steps.patience=None": "no early stopping",
    "steps.precision=16-mixed": "mixed precision (float16)",
    "steps.precision=float32": "float32",
    "steps.precision=bf16-mixed": "mixed precision (bfloat16)",
    "task.average=None": "no average of the weights",
    "task.flip=False": "no flipped images at the test",
}
PATTERNS = {"keep": "dense", "freeze": "frozen"}  # setting → what its layers are
# Lists of patterns hold commas of their own, so an option ends only where another KEY= begins.
BETWEEN = re.compile(r", (?=[\w.]+=)")


def scaffold_words(init: str) -> str:
    """Name a family or preset of W_seed; "" for none."""
    return SCAFFOLDS.get(init, init.replace("_", " "))


def options_words(options: str) -> str:
    """Name options that are written as `KEY=VALUE, KEY=VALUE`; "" for none."""
    pairs = [each.partition("=") for each in BETWEEN.split(options) if each]
    return ", ".join(setting_words(key, value) for key, _, value in pairs)


def adapter_words(adapter: str) -> list[str]:
    """Name the options of an adapter that are written as `+dora+B_init=kaiming`."""
    pairs = [each.partition("=") for each in adapter.split("+") if each]
    return [setting_words(key, value) for key, _, value in pairs]


def changes_words(changed: Mapping[str, object]) -> str:
    """Name what a run changed in its recipe; "" for nothing."""
    return ", ".join(setting_words(key, str(value)) for key, value in changed.items())


def setting_words(key: str, value: str) -> str:
    """Name one setting; one that SETTINGS does not know is its key with spaces."""
    if key in PATTERNS:
        return patterns_words(PATTERNS[key], re.findall("'([^']*)'", value))
    known = SETTINGS.get(f"{key}={value}") or SETTINGS.get(key)
    if known:
        return known.format(with_commas(value))
    name = key.rpartition(".")[2].replace("_", " ")
    return f"{name} = {with_commas(value)}" if value else name


def patterns_words(place: str, patterns: list[str]) -> str:
    """Name the layers that are kept or frozen: those of a single pattern by it, several as other layers."""
    if len(patterns) == 1:
        return f"{place}: {patterns[0].replace('*', ' ').replace('_', ' ').strip(' .')}"
    return f"other layers {place}" if patterns else f"no layer {place}"


def with_commas(value: str) -> str:
    """Group the digits of a whole number of five or more."""
    return f"{int(value):,}" if value.isdigit() and len(value) > 4 else value.replace("_", " ")
