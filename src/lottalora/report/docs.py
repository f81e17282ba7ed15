"""The blocks that README and docs are filled with: one function each, from rows to Markdown."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from statistics import fmean
from statistics import median
from types import MappingProxyType

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import pair_title
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.evidence import MNIST_SIZES
from lottalora.report.evidence import paper_block
from lottalora.report.evidence import protocol_lines
from lottalora.report.evidence import runs_text
from lottalora.report.over_families import FAMILIES
from lottalora.report.over_families import MEAN
from lottalora.report.over_families import SPREAD
from lottalora.report.over_families import families_of
from lottalora.report.over_families import family_means
from lottalora.report.over_families import over_families as of_families
from lottalora.report.scores import scores_of
from lottalora.report.tables import paper_cell
from lottalora.report.tables import percent
from lottalora.report.tables import share
from lottalora.report.tables import signed
from lottalora.report.words import changes_words
from lottalora.scaffold.families import SCALINGS

MakeBlock = Callable[..., str]
MAKERS: dict[str, MakeBlock] = {}
OPTIONS = ("place", "fresh", "freeze")  # of a line, as it is written there
OF_THE_BLOCK = ("recipe", "metric", "precision")
SELECTORS = (*OF_THE_BLOCK, "init", "adapter", "alpha", *OPTIONS)  # KEY=VALUE words of a marker
SHORT_ARMS = (  # columns of the shortened runs: condition → what stands before its scores
    {"full": ""},
    {"scaffold": ""},
    {"no_scaffold": ""},
    {"lora": "LoRA", "probe": "head alone"},
)


def fills(make: MakeBlock) -> MakeBlock:
    """Register a block under the name of its function: (blocks, *words of the marker) → Markdown."""
    MAKERS[make.__name__] = make
    return make


@fills
def score(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str = "-", *rest: str
) -> str:
    """One score in a sentence: `score mlp mnist medium scaffold 8`, then init=, adapter=, recipe= …"""
    block, line = find(blocks, model, data, size, condition, rank, *rest)
    unit = f" {block.metric.unit}" if block.metric.unit == "%" else ""
    values = runs_text(scores_of(line), block.metric)
    return values.replace(" (n", f"{unit} (n")


@fills
def last_validation(blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str) -> str:
    """The validation score after the last epoch, from the rows' history."""
    block, line = find(blocks, model, data, size, condition, rank)
    unit = f" {block.metric.unit}" if block.metric.unit == "%" else ""
    last = [run["history"]["validation_score"][-1] for run in line.runs if run["history"]]
    return runs_text(last, block.metric).replace(" (n", f"{unit} (n")


@fills
def difference(blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str = "-") -> str:
    """Our mean minus the paper's number."""
    block, line = find(blocks, model, data, size, condition, rank)
    return signed(line.difference, block.metric)


@fills
def recovery(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """Recovery in percent."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{percent(100 * line.recovery)} %"


@fills
def trainable(blocks: list[Block], model: str, data: str, size: str, rank: str) -> str:
    """The share of the full model's parameters that a scaffold trains."""
    _, line = find(blocks, model, data, size, "scaffold", rank)
    return f"{share(line.percent_of_full)} %"


@fills
def beta(blocks: list[Block], model: str, data: str, size: str) -> str:
    """The least and the greatest β of the paper's scaffold, over ranks, seeds and layers."""
    lines = protocol_lines(find_block(blocks, model, data, size))
    values = betas(lines)
    return f"{min(values):.2f} and {max(values):.2f}"


@fills
def median_beta(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """The median of a line's β, over its layers and runs."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{median(betas([line])):.3f}"


@fills
def decay_alone(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> str:
    """What weight decay alone makes of a β of 1 in a line's runs."""
    _, line = find(blocks, model, data, size, condition, rank, *rest)
    return f"{fmean(run['beta_decay'] for run in line.runs):.3f}"


@fills
def figure_runs(blocks: list[Block]) -> str:
    """How many runs stand behind a point of the README's figure."""
    from lottalora.report.docs_figure import panels

    counts = [point.line.scores.n for panel in panels(blocks) for point in panel.points]
    return f"n = {min(counts)} to {max(counts)} seeds"


@fills
def headline(blocks: list[Block]) -> str:
    """What was run by the paper's protocol: full training and a few ranks of each benchmark."""
    head = ["benchmark", "", "trained, % of full", "test score", "recovery, %", "paper"]
    lines = []
    for benchmark in NINE:
        block = paper_block(blocks, benchmark.model, benchmark.data, benchmark.size)
        if block is None or block.baseline is None:
            continue
        chosen = [line for line in protocol_lines(block) if line.rank in (1, 8, 32)]
        for place, line in enumerate([block.baseline, *chosen]):
            unit = block.metric.unit or block.metric.name
            name = f"{benchmark.title}, {unit}" if place == 0 else ""
            said = "full training" if line.rank is None else f"scaffold, r = {line.rank}"
            ours = runs_text(scores_of(line), block.metric)
            paper = paper_cell(line, block.metric)
            lines.append([name, said, share(line.percent_of_full), ours, percent(100 * line.recovery), paper])
    return table_text(head, lines, numbers=(2, 3, 4, 5))


@fills
def table(blocks: list[Block], model: str, data: str, size: str) -> str:
    """Full training and every rank of the paper's scaffold, beside the paper's numbers."""
    block = find_block(blocks, model, data, size)
    removed = {line.rank: line for line in protocol_lines(block, "no_scaffold")}
    score_name = block.metric.label
    head = [
        "",
        "rank",
        "trained, % of full",
        score_name,
        "recovery, %",
        "scaffold removed",
        "paper",
        "ours − paper",
    ]
    lines = []
    for line in [*([block.baseline] if block.baseline else []), *protocol_lines(block)]:
        arm = removed.get(line.rank) if line.rank is not None else None
        lines.append(
            [
                line.label,
                "" if line.rank is None else str(line.rank),
                share(line.percent_of_full),
                runs_text(scores_of(line), block.metric),
                percent(100 * line.recovery),
                runs_text(scores_of(arm), block.metric).partition(" (")[0] if arm else "",
                paper_cell(line, block.metric),
                signed(line.difference, block.metric),
            ]
        )
    return table_text(head, lines, numbers=range(1, 8))


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
    means = mnist_families(blocks, int(rank))
    ending = {"mean": MEAN, "spread": SPREAD}[what]
    return f"{100 * fmean(of_families(each, ending) for each in means):.2f}"


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
def shortened(blocks: list[Block]) -> str:
    """Runs of another recipe or data set than the paper's, which are not tested against it."""
    titles = {(each.model, each.data): each.title for each in NINE}
    titles |= {("vit", "flowers102"): "Flowers-102, ViT"}
    titles |= {("vit_random", "flowers102"): "Flowers-102, ViT from a random start"}
    head = ["", "recipe", "full training", "scaffold", "scaffold removed", "on learned weights"]
    lines = []
    for block in blocks:
        if block.recipe == "paper" or not (block.own or block.metric.paper_name == "d4rl_score"):
            continue
        title = titles.get((block.model, block.data), pair_title(block.model, block.data))
        title += f", {block.size}" if block.size != "base" else ""
        cells_ = [f"{title}: {block.metric.of_part}{percent_sign(block)}", recipe_text(block, blocks)]
        for names in SHORT_ARMS:
            group = [line for line in block.lines if line.condition in names]
            cells_.append("<br>".join(short_text(block, line, names[line.condition]) for line in group))
        if any(cells_[2:]):  # not a control alone
            lines.append(cells_)
    return table_text(head, lines)


def betas(lines: Iterable[Line]) -> list[float]:
    """Every finite β of the lines, over their runs and layers."""
    found = (value for line in lines for run in line.runs for value in run["beta"].values())
    return [value for value in found if value is not None]


def find(
    blocks: list[Block], model: str, data: str, size: str, condition: str, rank: str, *rest: str
) -> tuple[Block, Line]:
    """The one line that is asked for: of the paper's recipe and scaffold unless said otherwise.

    A key with a dot is what the training changed in its recipe, such as optimizer.lr=0.003.
    """
    options = dict(word.split("=", 1) for word in rest)
    changed = {key: options.pop(key) for key in list(options) if "." in key}
    if unknown := options.keys() - SELECTORS:
        raise ValueError(f"Unknown {', '.join(sorted(unknown))} in a marker. Known: {', '.join(SELECTORS)}.")
    of_the_block = {key: options[key] for key in OF_THE_BLOCK if key in options}
    block = find_block(blocks, model, data, size, **of_the_block, changed=changed)
    wanted = None if rank == "-" else int(rank)
    lines = [line for line in block.lines if (line.condition, line.rank) == (condition, wanted)]
    init = options.get("init")
    benchmark = BENCHMARKS.get((model, data))
    if init is None and benchmark and condition in ("scaffold", "no_scaffold"):
        init = benchmark.init
    lines = [line for line in lines if init is None or line.init == init]
    if "adapter" in options:
        lines = [line for line in lines if line.adapter == f"+{options['adapter']}"]
    elif len(lines) > 1:
        lines = [line for line in lines if not line.adapter]
    if "alpha" in options:
        lines = [line for line in lines if line.alpha == float(options["alpha"])]
    elif named := [f"{key}={options[key]}" for key in OPTIONS if key in options]:
        exact = [line for line in lines if line.options == ", ".join(named)]
        lines = exact or [line for line in lines if set(named) <= set(line.options.split(", "))]
    elif len(lines) > 1:
        lines = [line for line in lines if not line.options]
    if len(lines) != 1:
        raise ValueError(
            f"{len(lines)} lines of the rows are {' '.join((model, data, size, condition, rank, *rest))}."
        )
    return block, lines[0]


def find_block(
    blocks: list[Block],
    model: str,
    data: str,
    size: str,
    recipe: str = "paper",
    metric: str | None = None,
    precision: str | None = None,
    changed: Mapping[str, str] = MappingProxyType({}),
) -> Block:
    """Return the block of these names, of several the one that changed least in its recipe.

    Raises:
        ValueError: there is none, or two that changed as little.
    """
    found = [
        block
        for block in blocks
        if (block.model, block.data, block.size, block.recipe) == (model, data, size, recipe)
        and (block.metric.name.replace(" ", "_") == metric or (block.own and not metric))
        and precision in (None, block.precision or "32-true")
        and all(str(block.changed.get(key)) == value for key, value in changed.items())
    ]
    found = [block for block in found if block.own] or found
    least = min((len(block.changed) for block in found), default=0)
    found = [block for block in found if len(block.changed) == least]
    if len(found) != 1:
        number = f"{len(found)} tables of" if found else "no"
        asked = ", ".join((f"recipe {recipe}", *(f"{key}={value}" for key, value in changed.items())))
        titles = "".join(f"\n  {block.title}" for block in found)
        raise ValueError(f"{number} rows of {model} on {data}, {size}, {asked}.{titles}")
    return found[0]


def cell_text(block: Block, line: Line | None) -> str:
    """Format the scores of a line; "" for none."""
    return "" if line is None else runs_text(scores_of(line), block.metric)


def short_text(block: Block, line: Line, name: str) -> str:
    """Format a line's name, rank, options and scores in a few words."""
    rank = f"r = {line.rank}" if line.rank else ""
    said = ", ".join(word for word in (name, rank, line.options_text) if word)
    values = ", ".join(block.metric.text(value) for value in scores_of(line))
    return f"{said}: {values}" if said else values


def recipe_text(block: Block, blocks: Iterable[Block]) -> str:
    """The recipe, and what was set otherwise than in other blocks of its name, if there are any."""

    def name(each: Block) -> tuple:
        return each.model, each.data, each.size, each.recipe, each.metric.of_part

    def settings(each: Block) -> dict[str, object]:
        return {"steps.precision": each.precision or "float32"} | each.changed

    twins = [settings(each) for each in blocks if name(each) == name(block)]
    if block.recipe == "modified":  # a name that says nothing; without a change it would be the paper's
        twins.append({"steps.precision": "float32"})
    own = {
        key: value for key, value in settings(block).items() if any(twin.get(key) != value for twin in twins)
    }
    return ", ".join(part for part in (f"`{block.recipe}`", changes_words(own)) if part)


def percent_sign(block: Block) -> str:
    """Return the unit behind a comma, for headings."""
    return f", {block.metric.unit}" if block.metric.unit else ""


def table_text(head: list[str], lines: list[list[str]], numbers: Collection[int] = ()) -> str:
    """A Markdown table; the columns of `numbers` are set to the right."""
    rule = ["--:" if column in numbers else ":--" for column in range(len(head))]
    safe = [[cell.replace("|", "&#124;") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *safe))
