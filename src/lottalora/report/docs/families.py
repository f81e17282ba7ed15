"""The families of W_seed beside each other."""

from fractions import Fraction
from statistics import fmean

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.docs.find import find_block
from lottalora.report.docs.markdown import table_text
from lottalora.report.docs.markers import fills
from lottalora.report.over_families import FAMILIES
from lottalora.report.over_families import families_of
from lottalora.report.over_families import family_means
from lottalora.report.over_families import mean_of
from lottalora.report.over_families import spread_of
from lottalora.report.paper_cells import MNIST_SIZES
from lottalora.report.score_text import line_text
from lottalora.scaffold.families.family import SCALINGS

SCALED = {  # family → the parameter that scales it, its value in the paper's Table 13, how the table is read
    "normal_0.1": ("std", 0.1, ""),
    "uniform": ("bound", 0.1, "literal"),
    "laplace": ("scale", 0.1, "literal"),
    "cauchy": ("scale", 0.1, "literal"),
    "orthogonal": ("gain", 1.0, ""),
}


@fills
def families(blocks: list[Block], model: str, data: str, size: str, ranks: str) -> str:
    """The scaffold's score for every family of W_seed: `families mlp mnist medium 2,8`."""
    block = find_block(blocks, model, data, size)
    asked = [int(rank) for rank in ranks.split(",")]
    plain = [line for line in block.lines if line.condition == "scaffold" and not line.adapter]
    found = {(line.init, line.rank): line for line in plain if not line.options}
    inits = sorted({init for init, rank in found if rank in asked})
    head = ["W_seed", *(f"rank {rank}" for rank in asked), *(f"rank {rank}, removed" for rank in asked)]
    removed = [line for line in block.lines if line.condition == "no_scaffold" and not line.adapter]
    arms = {(line.init, line.rank): line for line in removed if not line.options}
    lines = [
        [
            f"`{init}`",
            *(cell_text(block, source.get((init, rank))) for source in (found, arms) for rank in asked),
        ]
        for init in inits
    ]
    return table_text(head, lines, numbers=range(1, len(head)))


@fills
def over_families(blocks: list[Block], rank: str, what: str) -> str:
    """The `mean` over families and sizes on MNIST, or the `spread` of families: `over_families 8 mean`."""
    found = {"mean": mean_of, "spread": spread_of}[what](mnist_families(blocks, int(rank)))
    return f"{100 * found:.2f}"


@fills
def family_table(blocks: list[Block], ranks: str) -> str:
    """Each family's mean over the sizes of MNIST, by its mean over ranks: `family_table 2,4,8`."""
    asked = [int(rank) for rank in ranks.split(",")]
    means = [[fmean(each) for each in zip(*mnist_families(blocks, rank), strict=True)] for rank in asked]
    lines = sorted(zip(FAMILIES, *means, strict=True), key=lambda line: -fmean(line[1:]))
    table = [[f"`{family}`", *(f"{100 * score:.2f}" for score in scores)] for family, *scores in lines]
    return table_text(
        ["W_seed", *(f"rank {rank}" for rank in asked)], table, numbers=range(1, 1 + len(asked))
    )


def mnist_families(blocks: list[Block], rank: int) -> list[list[float]]:
    """For each seed that all have, the mean over sizes of each family."""
    runs = families_of(blocks).runs_of("mlp", MNIST_SIZES, "scaffold", rank)
    return family_means(runs, MNIST_SIZES)


@fills
def scalings(blocks: list[Block], model: str, data: str, size: str, rank: str) -> str:
    """The score of each family at each reading of its fan-in scaling: `scalings mlp mnist medium 8`."""
    block = find_block(blocks, model, data, size)
    lines = [line for line in block.lines if line.condition == "scaffold" and line.rank == int(rank)]
    found = {(line.init, line.options.removeprefix("scaling=") or "standardised"): line for line in lines}
    inits = sorted({init for init, scaling in found if scaling == "multiplied"})
    table = [
        [f"`{init}`", *(cell_text(block, found.get((init, each))) for each in SCALINGS)] for init in inits
    ]
    return table_text(["W_seed", *SCALINGS], table, numbers=range(1, 1 + len(SCALINGS)))


@fills
def scales(blocks: list[Block], model: str, data: str, size: str, rank: str) -> str:
    """Each family's score at multiples of its scale, β trained / β = 1: `scales mlp mnist medium 8`."""
    block = find_block(blocks, model, data, size)
    lines = [line for line in block.lines if (line.condition, line.rank) == ("scaffold", int(rank))]
    found = {multiple_of(line): block.metric.text(line.scores.mean) for line in lines}
    multiples = sorted({key[1] for key in found if key is not None})

    def both(init: str, multiple: Fraction) -> str:
        return " / ".join(found.get((init, multiple, trained), "–") for trained in (True, False))

    table = [[str(multiple), *(both(init, multiple) for init in SCALED)] for multiple in multiples]
    return table_text(["scale", *(f"`{init}`" for init in SCALED)], table, numbers=range(1 + len(SCALED)))


def multiple_of(line: Line) -> tuple[str, Fraction, bool] | None:
    """Family, multiple of its scale in Table 13, and whether β is trained; None with other settings."""
    if line.adapter or line.init not in SCALED:
        return None
    parameter, usual, scaling = SCALED[line.init]
    options = dict(option.split("=") for option in line.options.split(", ") if option)
    trained = options.pop("train_beta", "True") == "True"
    multiple = Fraction(float(options.pop(parameter, usual)) / usual).limit_denominator(99)
    return (line.init, multiple, trained) if options.pop("scaling", "") == scaling and not options else None


def cell_text(block: Block, line: Line | None) -> str:
    """Format the scores of a line; "" for none."""
    return "" if line is None else line_text(line, block.metric)
