"""What of a layer is no tensor."""

from typing import NamedTuple

from lottalora.scaffold.fused.cost import Form


class How(NamedTuple):
    """The form of a layer, its scale and its dropout.

    Args:
        form: ACCUMULATE or COMPOSE.
        scale: s, with the 1 / (1 − p) of dropout.
        dropout: p of the adapter path; 0 for none.
        seed: of the mask.
    """

    form: Form
    scale: float
    dropout: float = 0.0
    seed: int = 0
