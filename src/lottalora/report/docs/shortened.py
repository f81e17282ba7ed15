"""Runs of another recipe or data set than the paper's, side by side."""

from collections.abc import Iterable

from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import pair_title
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.docs.markdown import table_text
from lottalora.report.docs.markers import fills
from lottalora.report.grouping import PRECISION
from lottalora.report.scores import scores_of
from lottalora.report.words import changes_words

SHORT_ARMS = (  # columns: condition → what stands before its scores
    {"full": ""},
    {"scaffold": ""},
    {"no_scaffold": ""},
    {"lora": "LoRA", "probe": "head alone"},
)


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


def short_text(block: Block, line: Line, name: str) -> str:
    """Format a line's name, rank, options and scores in a few words."""
    rank = f"r = {line.rank}" if line.rank else ""
    said = ", ".join(word for word in (name, rank, line.options_text) if word)
    values = ", ".join([*map(block.metric.text, scores_of(line)), *["diverged"] * line.scores.diverged])
    return f"{said}: {values}" if said else values


def recipe_text(block: Block, blocks: Iterable[Block]) -> str:
    """The recipe, and what was set otherwise than in other blocks of its name, if there are any."""

    def name(each: Block) -> tuple:
        return each.model, each.data, each.size, each.recipe, each.metric.of_part

    def settings(each: Block) -> dict[str, object]:
        return {PRECISION: each.precision or "float32"} | each.changed

    twins = [settings(each) for each in blocks if name(each) == name(block)]
    if block.recipe == "modified":  # a name that says nothing; without a change it would be the paper's
        twins.append({PRECISION: "float32"})
    own = {
        key: value for key, value in settings(block).items() if any(twin.get(key) != value for twin in twins)
    }
    return ", ".join(part for part in (f"`{block.recipe}`", changes_words(own)) if part)


def percent_sign(block: Block) -> str:
    """Return the unit behind a comma, for headings."""
    return f", {block.metric.unit}" if block.metric.unit else ""
