"""Table 3 of the paper: the mean over 22 families of W_seed and three sizes, and how far apart they lie."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from lottalora.report.blocks import Block
from lottalora.report.protocol import keeps_recipe
from lottalora.report.scores import scores_by_seed

FAMILIES = (
    *("normal", "truncated_normal", "uniform", "orthogonal", "kaiming_normal", "kaiming_uniform"),
    *("xavier_normal", "xavier_uniform", "spectral_radius", "cauchy", "laplace", "student_t"),
    *("gaussian_mixture", "sparse_normal", "sparse_erdos_renyi", "beta", "exponential"),
    *("quantized_16bit", "quantized_8bit", "quantized_4bit", "quantized_2bit", "binary"),
)
MEAN, SPREAD = "_mean_over_families", "_spread_over_families"  # endings of the paper's metrics
STARTED = "full_from_scaffold"  # the table's full training starts from each family's W_seed
SWEEPS = {"full": "table3_full", "scaffold": "table3"}

Place = tuple[str, str, str, int | None, str]  # model, size, condition, rank, family
Scores = Mapping[int, float]  # by seed


@dataclass(frozen=True)
class Families:
    """The scores of every run by the paper's protocol, whatever its family."""

    scores: Mapping[Place, Scores]

    def runs_of(
        self, model: str, sizes: Sequence[str], condition: str, rank: int | None
    ) -> dict[tuple[str, str], Scores]:
        """Scores by family and size, as far as there are any."""
        arm = STARTED if condition == "full" else condition
        places = {(family, size): (model, size, arm, rank, family) for family in FAMILIES for size in sizes}
        return {key: self.scores[place] for key, place in places.items() if place in self.scores}


def family_means(runs: Mapping[tuple[str, str], Scores], sizes: Sequence[str]) -> list[list[float]]:
    """For each seed that all runs have, the mean over sizes of each family."""
    common = sorted(set.intersection(*(set(scores) for scores in runs.values())))
    return [[fmean(runs[family, size][seed] for size in sizes) for family in FAMILIES] for seed in common]


def families_of(blocks: Sequence[Block]) -> Families:
    """Sort the lines of blocks by family."""
    found: dict[Place, Scores] = {}
    for block in blocks:
        for line in block.lines:
            plain = not line.options and not line.adapter
            if block.own and plain and not block.changed and keeps_recipe(line.runs[0]):
                rank = None if line.condition == STARTED else line.rank
                found[block.model, block.size, line.condition, rank, line.init] = scores_by_seed(line)
    return Families(found)


def mean_of(means: Sequence[Sequence[float]]) -> float:
    """The mean over seeds and families."""
    return fmean(map(fmean, means))


def spread_of(means: Sequence[Sequence[float]]) -> float:
    """From the worst family to the best, of their means over the seeds; what one seed has would be wider."""
    over_seeds = [fmean(each) for each in zip(*means, strict=True)]
    return max(over_seeds) - min(over_seeds)
