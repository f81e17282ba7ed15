"""The paper's nine benchmarks: their names in this suite, in the paper and in its tables."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Args:
        title: in reports.
        model, data: names in conf/model and conf/data.
        name: in the column `benchmark` of paper.csv.
        metric: in the column `metric` of paper.csv; what the benchmark is judged by.
        variant: the paper's variant that is shown where ours has no counterpart in the paper.
        higher_is_better: direction of the metric.
        init: the scaffold that its tables use, a name in conf/init.
        alpha: its α as a function of r.
        variants: our size, or size+option of the adapters, → the paper's variant, where the two differ.
    """

    title: str
    model: str
    data: str
    name: str
    metric: str
    variant: str
    higher_is_better: bool = True
    init: str = "normal"
    alpha: Callable[[int], float] = lambda rank: rank
    variants: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """Our size for the variant that is shown."""
        ours = [size for size, variant in self.variants.items() if variant == self.variant]
        return ours[0].partition("+")[0] if ours else self.variant

    def variant_of(self, size: str) -> str:
        """Return the paper's variant for one of our sizes."""
        return self.variants.get(size, size)


NINE = (
    Benchmark(
        title="MNIST, MLP",
        model="mlp",
        data="mnist",
        name="mnist",
        metric="test_acc",
        variant="medium",
        init="normal_0.1",
    ),
    Benchmark(
        title="PhysioNet 2012 mortality, CfC",
        model="cfc",
        data="physionet2012",
        name="physionet2012",
        metric="test_auroc",
        variant="1x",
    ),
    Benchmark(
        title="CIFAR-10, Plain-20",
        model="resnet",
        data="cifar10",
        name="cifar10",
        metric="test_acc",
        variant="plain20",
    ),
    Benchmark(
        title="OGBG-MolHIV, GIN",
        model="gin",
        data="molhiv",
        name="ogbg_molhiv",
        metric="test_rocauc",
        variant="gin",
        variants={"base": "gin"},
    ),
    Benchmark(
        title="OGBN-Arxiv, GCN",
        model="gcn",
        data="arxiv",
        name="ogbn_arxiv",
        metric="test_acc",
        variant="gcn",
        variants={"base": "gcn"},
    ),
    Benchmark(
        title="Flowers-102, ViT-B/16",
        model="vit",
        data="flowers102",
        name="flowers102",
        metric="test_acc",
        variant="vit_b16_pretrained",
        variants={"base": "vit_b16_pretrained"},
    ),
    Benchmark(
        title="IMDB, DistilBERT-style transformer",
        model="distilbert",
        data="imdb",
        name="imdb",
        metric="test_acc",
        variant="distil3",
        alpha=lambda rank: 2 * rank,
        variants={"base": "distil3"},
    ),
    Benchmark(
        title="HalfCheetah, Decision Transformer",
        model="decision_transformer",
        data="halfcheetah",
        name="halfcheetah_expert",
        metric="val_mse",
        variant="small",
        higher_is_better=False,
    ),
    Benchmark(
        title="WikiText-103, GPT",
        model="gpt",
        data="wikitext103",
        name="wikitext103",
        metric="train_loss",
        variant="900M",
        higher_is_better=False,
        alpha=lambda rank: 16,
    ),
)
RANDOM_VIT = Benchmark(
    title="Flowers-102, ViT-B/16 from a random start",
    model="vit_random",
    data="flowers102",
    name="flowers102",
    metric="test_acc",
    variant="vit_b16_random",
    variants={"base": "vit_b16_random", "base+layer_norm": "vit_b16_random+ln"},
)
# (model, data) → benchmark. A pair without an entry has no number of the paper beside it.
BENCHMARKS = {(each.model, each.data): each for each in (*NINE, RANDOM_VIT)}


# Other pairs, and their parts, by their proper names.
DATA = {
    "mnist": "MNIST",
    "gated_mnist": "MNIST, a seed for each group of digits",
    "digits": "handwritten digits",
    "lorenz": "Lorenz system",
    "physionet2012": "PhysioNet 2012 mortality",
    "cifar10": "CIFAR-10",
    "molhiv": "OGBG-MolHIV",
    "arxiv": "OGBN-Arxiv",
    "flowers102": "Flowers-102",
    "imdb": "IMDB",
    "halfcheetah": "HalfCheetah",
    "wikitext103": "WikiText-103",
    "wikitext2": "WikiText-2",
    "enwiki": "English Wikipedia",
    "enwiki-bpe1024": "English Wikipedia, 1,024 tokens",
}
MODELS = {
    "mlp": "MLP",
    "cfc": "CfC",
    "resnet": "Plain-20",
    "gin": "GIN",
    "gcn": "GCN",
    "vit": "ViT-B/16",
    "vit_random": "ViT from a random start",
    "distilbert": "DistilBERT-style transformer",
    "decision_transformer": "Decision Transformer",
    "gpt": "GPT",
}
# (model, data) → the benchmark whose data it stands in for.
STANDS_IN_FOR = {("gpt", "enwiki"): ("gpt", "wikitext103"), ("gpt", "wikitext2"): ("gpt", "wikitext103")}


def pair_title(model: str, data: str) -> str:
    """Return a pair's name for people; a name that is not listed as it is."""
    if (model, data) in BENCHMARKS:
        return BENCHMARKS[model, data].title
    return f"{DATA.get(data, data)}, {MODELS.get(model, model)}"
