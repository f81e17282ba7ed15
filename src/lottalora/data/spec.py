"""What is known of a data set before it is read: sizes, metric, chance."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The sizes of a data set and how it is scored.

    Args:
        in_shape: shape of one input, without the batch axis.
        out_dim: number of outputs, here classes.
        metric: name of the score, in the words of tables.
        higher_is_better: direction of the metric.
        chance: the score of guessing, from which recovery above chance is counted.
    """

    in_shape: tuple[int, ...]
    out_dim: int
    metric: str
    higher_is_better: bool
    chance: float

    def scoring(self) -> dict:
        """The part of a row that says what its score means."""
        return {"metric": self.metric, "higher_is_better": self.higher_is_better, "chance": self.chance}


def checked_sample(sample: object) -> bool:
    """Return data.sample; raise ValueError unless it is true or false."""
    if not isinstance(sample, bool):
        raise ValueError(f"data.sample must be true or false, got {sample!r}.")
    return sample
