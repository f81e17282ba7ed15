"""A folder that `from_pretrained` of transformers loads: Llama, ViT and DistilBERT with merged weights.

Letters: K outputs, d width.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn

from lottalora.artifacts.export.model import Model
from lottalora.scaffold import merge

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSES = {  # architecture → class of transformers
    "gpt": "LlamaForCausalLM",
    "vit": "ViTForImageClassification",
    "distilbert": "DistilBertForSequenceClassification",
}
PREFIXES = {  # of names in our model → in theirs
    "gpt": {"lm.": ""},
    "vit": {"body.": "vit.", "head.": "classifier."},
    "distilbert": {"embeddings.": "distilbert.embeddings.", "transformer.": "distilbert.transformer."},
}


def write(model: Model, out: Path) -> None:
    """Merge, and write config.json and model.safetensors.

    Raises:
        ValueError: transformers has no class for this architecture, or none of these sizes.
    """
    if model.name not in CLASSES:
        raise ValueError(
            f"transformers has no class for {model.name!r}, only for {', '.join(CLASSES)}. "
            "Use --to state_dict."
        )
    merge(model.net)
    theirs_of(model, model.net).save_pretrained(out)


def theirs_of(model: Model, net: nn.Module) -> "PreTrainedModel":
    """The model of transformers that computes what a plain net of ours computes, on the same tensors."""
    theirs = MADE[model.name](net)
    theirs.config.architectures = [CLASSES[model.name]]
    return theirs.eval()


def read(model: Model, folder: Path) -> "PreTrainedModel":
    """Load a folder with the class's `from_pretrained`."""
    import transformers

    return getattr(transformers, CLASSES[model.name]).from_pretrained(folder).eval()


def output(model: Model, out: Path) -> Tensor:
    """The logits of the folder's model."""
    return logits(model, read(model, out))


def logits(model: Model, theirs: nn.Module) -> Tensor:
    """The logits of a model of transformers for our inputs."""
    if model.name != "distilbert":
        return theirs(model.inputs[0]).logits
    tokens, lengths = model.inputs
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]  # (N, T)
    return theirs(input_ids=tokens, attention_mask=mask.long()).logits


def renamed(name: str, architecture: str) -> str:
    """The name in the model of transformers of a module or tensor of ours."""
    for ours, theirs in PREFIXES[architecture].items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"{CLASSES[architecture]} has nothing for {name!r}, so it cannot have an adapter there.")


def llama(net: nn.Module) -> "PreTrainedModel":
    """It is one already."""
    return net.lm


def vit(net: nn.Module) -> "PreTrainedModel":
    """Its body, and the head as `classifier`."""
    from transformers import ViTForImageClassification

    config = net.body.config
    config.num_labels = net.head.out_features
    with torch.device("meta"):
        theirs = ViTForImageClassification(config)
    theirs.vit, theirs.classifier = net.body, net.head
    return theirs


def distilbert(net: nn.Module) -> "PreTrainedModel":
    r"""Its modules by the same names, and the head as two layers: theirs has a ReLU before the last one.

    .. math:: z = \mathrm{relu}(z) - \mathrm{relu}(-z), \quad z = W_{head} h + b

    So the first 2K rows of `pre_classifier` are ± the head, all others 0, and `classifier` adds 1 and −1
    times them, which rounds nothing.

    Raises:
        ValueError: the width d is below 2K.
    """
    from transformers import DistilBertConfig
    from transformers import DistilBertForSequenceClassification

    blocks, words = net.transformer["layer"], net.embeddings.word_embeddings
    K, d = net.head.weight.shape
    if d < 2 * K:
        raise ValueError(f"DistilBertForSequenceClassification holds {d // 2} outputs of ours, not {K}.")
    config = DistilBertConfig(
        vocab_size=words.num_embeddings,
        max_position_embeddings=net.embeddings.position_embeddings.num_embeddings,
        dim=d,
        n_layers=len(blocks),
        n_heads=blocks[0].attention.heads,
        hidden_dim=blocks[0].ffn["lin1"].out_features,
        dropout=net.dropout.probability,
        attention_dropout=blocks[0].attention.probability,
        seq_classif_dropout=net.dropout.probability,
        pad_token_id=words.padding_idx,
        num_labels=K,
    )
    theirs = DistilBertForSequenceClassification(config)
    state = {name: tensor for name, tensor in net.state_dict().items() if not name.startswith("head.")}
    theirs.distilbert.load_state_dict(state)
    one = torch.eye(K)
    with torch.no_grad():
        for layer in (theirs.pre_classifier, theirs.classifier):
            layer.weight.zero_()
            layer.bias.zero_()
        theirs.pre_classifier.weight[: 2 * K] = torch.cat([net.head.weight, -net.head.weight])
        theirs.pre_classifier.bias[: 2 * K] = torch.cat([net.head.bias, -net.head.bias])
        theirs.classifier.weight[:, : 2 * K] = torch.cat([one, -one], dim=1)
    return theirs


MADE: dict[str, Callable[[nn.Module], "PreTrainedModel"]] = {
    "gpt": llama,
    "vit": vit,
    "distilbert": distilbert,
}
