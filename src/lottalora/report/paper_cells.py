"""Every number of the paper, in the suite's words, with the command that would fill it."""

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.metrics import METRICS
from lottalora.analysis.metrics import Metric
from lottalora.analysis.paper import ALL_SIZES
from lottalora.analysis.paper import lines
from lottalora.report.over_families import MEAN
from lottalora.report.over_families import SPREAD

MNIST_SIZES = ("tiny", "small", "medium")  # over which Tables 2 and 3 average
BY_METRIC = {metric.paper_name: metric for metric in METRICS.values() if metric.paper_name}
# The paper's condition → ours, where the same run goes by another name.
SAME_RUN = {
    "resample_static": "scaffold",
    "b_init_zeros": "scaffold",
    "b_init_kaiming": "scaffold+B_init=kaiming",
    "head_full": "scaffold",
    "scaffold_min": "scaffold",
    "scaffold_max": "scaffold",
}
# Where the adapters of the MLP are, as a preset of the model names it → the paper's condition.
OF_PLACE = {"body_and_head": "head_lora", "body_and_head_with_bias": "head_lora_bias"}
# Condition → what to type for it; options of the adapters follow from their names.
TYPED = {
    "full": "mode=baseline",
    "scaffold": "",
    "no_scaffold": "",
    "zero_scaffold": "mode=zero",
    **{condition: f"model.place={place}" for place, condition in OF_PLACE.items()},
    "resample_epoch": "mode=resample_epoch",
    "resample_batch_k2": "mode=resample_batch",
    "resample_microbatch_k4": "mode=resample_microbatch",
}
# Data set → what names the paper's own data, where the suite takes others by itself.
OF_DATA = {"halfcheetah": "data.source=d4rl"}


@dataclass(frozen=True)
class Cell:
    """One number of the paper, in the paper's unit, in the suite's words.

    Args:
        line: of paper.csv.
        model: as in conf/model.
        data: as in conf/data.
        sizes: of the model; several where the paper averages over them.
        condition: with the options of the adapters, such as "scaffold+dora".
        rank: r; None for full training.
        metric: None for a cost, such as memory, which no row is scored by.
    """

    line: Mapping[str, str]
    model: str
    data: str
    sizes: tuple[str, ...]
    condition: str
    rank: int | None
    metric: Metric | None

    @property
    def paper(self) -> float:
        return float(self.line["mean"])

    @property
    def typed(self) -> str | None:
        """The command that fills this cell; None if the suite cannot yet."""
        condition, *options = self.condition.split("+")
        if self.metric is None or condition not in TYPED:
            return None
        several = len(self.sizes) > 1
        words = ["python run.py", "-m" if several else "", f"model={self.model}", f"data={self.data}"]
        words += [OF_DATA.get(self.data, "")]
        words += [f"model.size={','.join(self.sizes)}", TYPED[condition]]
        words += [] if self.rank is None else [f"rank={self.rank}"]
        words += [f"adapter.{option}" + ("" if "=" in option else "=true") for option in options]
        return " ".join(word for word in words if word)


def cells() -> Iterator[Cell]:
    """All numbers of paper.csv, in its order."""
    for line in lines():
        model, data, size, option = place_of_variant(line["benchmark"], line["variant"])
        condition = SAME_RUN.get(line["condition"], line["condition"]) + option
        sizes = MNIST_SIZES if line["variant"] in (ALL_SIZES, "families") else (size,)
        rank = int(line["rank"]) if line["rank"] else None
        metric = line["metric"].removesuffix(MEAN).removesuffix(SPREAD)
        yield Cell(line, model, data, sizes, condition, rank, BY_METRIC.get(metric))


def place_of_variant(name: str, variant: str) -> tuple[str, str, str, str]:
    """Our model, data and size for a variant of the paper, and the adapter option that it implies."""
    pairs = [(pair, benchmark) for pair, benchmark in BENCHMARKS.items() if benchmark.name == name]
    for (model, data), benchmark in pairs:
        for ours, theirs in benchmark.variants.items():
            if theirs == variant:
                size, plus, option = ours.partition("+")
                return model, data, size, plus + option
    (model, data), _ = pairs[0]
    return model, data, variant, ""
