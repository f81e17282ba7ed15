"""The block and the line of the rows that a marker asks for."""

from collections.abc import Mapping
from types import MappingProxyType

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line

OPTIONS = ("place", "fresh", "freeze", "std", "ranks")  # of a line, as it is written there
OF_THE_BLOCK = ("recipe", "metric", "precision")
SELECTORS = (*OF_THE_BLOCK, "init", "adapter", "alpha", *OPTIONS)  # KEY=VALUE words of a marker


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
