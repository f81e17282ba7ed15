"""Whether the first axis of every layer's input counts the examples, as blocks with rows of their own ask."""

from torch import nn

from lottalora.scaffold.layers.attention import SplitAttention

STACKED = nn.TransformerEncoderLayer | nn.TransformerDecoderLayer  # their linear layers follow the attention


def refuse_time_first(model: nn.Module) -> None:
    """Refuse a model in which an attention, and what follows it, has time steps on the first axis.

    Raises:
        ValueError: it has one.
    """
    for name, module in model.named_modules():
        attention = module.self_attn if isinstance(module, STACKED) else module
        split = isinstance(attention, SplitAttention)
        if (split or attention is not module) and not attention.batch_first:
            raise ValueError(
                f"{name or 'The model'!r} has batch_first=False, so the first axis counts time steps and not "
                "examples: build it with batch_first=True, or use one adapter and one scaffold at a time."
            )
