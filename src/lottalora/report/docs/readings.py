"""The readings of the paper's Table 2: how wide W_seed is drawn and where B starts."""

from statistics import fmean

from lottalora.report.blocks import Block
from lottalora.report.docs.find import find
from lottalora.report.docs.markdown import table_text
from lottalora.report.docs.markers import fills
from lottalora.report.paper_cells import MNIST_SIZES

DEVIATIONS = {
    "0.1": ("init=normal_0.1",),
    "1/√d_in": ("init=normal",),
    "0.1/√d_in": ("init=normal", "std=0.1"),
}
STARTS = {"zeros": (), "Kaiming's": ("adapter=B_init=kaiming",)}  # of B


@fills
def readings(blocks: list[Block], ranks: str) -> str:
    """The mean over sizes with W_seed and without it, by reading, and with W_seed = 0: `readings 2,4,8`."""
    asked = ranks.split(",")
    table = []
    for start, adapter in STARTS.items():
        for deviation, scaffold in DEVIATIONS.items():
            words = (*scaffold, *adapter)
            scores = [
                mean_over_sizes(blocks, condition, rank, words)
                for condition in ("scaffold", "no_scaffold")
                for rank in asked
            ]
            table.append([deviation, start, *scores])
        zero = [mean_over_sizes(blocks, "zero_scaffold", rank, adapter) for rank in asked]
        table.append(["0", start, *zero, *[""] * len(asked)])
    head = ["σ of W_seed", "start of B", *(f"rank {rank}" for rank in asked)]
    head += [f"rank {rank}, removed" for rank in asked]
    return table_text(head, table, numbers=range(2, len(head)))


def mean_over_sizes(blocks: list[Block], condition: str, rank: str, words: tuple[str, ...]) -> str:
    """The mean over MNIST's sizes of the means over seeds, in percent."""
    found = [find(blocks, "mlp", "mnist", size, condition, rank, *words) for size in MNIST_SIZES]
    return f"{100 * fmean(line.scores.mean for _, line in found):.1f}"
