"""The units of a score: as rows store it, as tables show it, as the paper names it. Defined nowhere else."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One way to score. A row's score times `scale` is what tables, figures and the paper show."""

    name: str
    paper_name: str | None = None  # in the column `metric` of paper.csv
    scale: float = 1.0
    unit: str = ""
    decimals: int = 4  # in tables, of the shown number
    part: str = "test"  # of the data, which the score is of
    agrees: float = float("nan")  # the margin within which two means match, in the shown unit
    higher_is_better: bool = True  # of a further score; a row says it of its own
    chance: float = float("nan")  # likewise: the score of guessing, in the unit of rows

    @property
    def label(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def of_part(self) -> str:
        """What was scored: test accuracy."""
        return f"{self.part} {self.name}".strip()

    @property
    def margin(self) -> float:
        """Within which two means match, in the unit of rows."""
        return self.agrees / self.scale

    def text(self, score: float) -> str:
        """The shown number; – for one that does not exist."""
        return "–" if score != score else f"{score * self.scale:.{self.decimals}f}"


# `agrees` is about twice the spread over seeds that the paper reports for its steadier rows.
METRICS = {
    "accuracy": Metric("accuracy", paper_name="test_acc", scale=100.0, unit="%", decimals=2, agrees=0.5),
    "rocauc": Metric("ROC-AUC", paper_name="test_rocauc", agrees=0.02),
    "loss": Metric("loss", unit="nats per token"),
    "train_loss": Metric(
        "loss",
        unit="nats per token",
        paper_name="train_loss",
        part="training",
        agrees=0.1,
        higher_is_better=False,
    ),
    "perplexity": Metric("perplexity", decimals=2, higher_is_better=False),
    "validation_perplexity": Metric(
        "perplexity", paper_name="val_ppl", decimals=2, part="validation", agrees=2.0, higher_is_better=False
    ),
    "bits_per_byte": Metric("bits per byte", higher_is_better=False),
    "auroc": Metric("AUROC", paper_name="test_auroc", agrees=0.01),
    "mse": Metric("MSE", paper_name="val_mse", decimals=5, part="validation", agrees=0.0035),
    "nmse": Metric("squared error / variance", decimals=4, higher_is_better=False, chance=1.0),
    "d4rl_score": Metric(
        "D4RL score", paper_name="d4rl_score", decimals=2, part="online", agrees=2.0, chance=0.0
    ),
}


def metric_of(name: str) -> Metric:
    """Return the metric of this name; an unlisted one is shown as rows store it."""
    return METRICS.get(name, Metric(name))
