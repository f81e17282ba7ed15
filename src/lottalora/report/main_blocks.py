"""Which block stands for a benchmark, which of its lines for the recipe, and whether it counts."""

from collections.abc import Iterator

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import STANDS_IN_FOR
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line


def by_benchmark(blocks: list[Block]) -> dict[tuple[str, str], list[Block]]:
    """Model and data of each benchmark → its blocks; the nine are there in any case."""
    pairs = {(each.model, each.data): [] for each in NINE}
    for block in blocks:
        pair = (block.model, block.data)
        pairs.setdefault(STANDS_IN_FOR.get(pair, pair), []).append(block)
    return pairs


def main_blocks(blocks: list[Block]) -> list[Block]:
    """The block of each benchmark that stands for it, in the order of the blocks."""
    chosen = [main_block(pair, members) for pair, members in by_benchmark(blocks).items() if members]
    return [block for block in blocks if any(block is each for each in chosen)]


def main_block(pair: tuple[str, str], blocks: list[Block]) -> Block:
    """The paper's protocol before others, its size before others, then the block with the most arms."""
    benchmark = BENCHMARKS.get(pair)

    def order(block: Block) -> tuple:
        size = bool(benchmark) and benchmark.variant_of(block.size) == benchmark.variant
        return not is_shortened(block), block.own, size, block.baseline is not None, len(block.lines)

    return max(blocks, key=order)


def is_shortened(block: Block) -> bool:
    """Whether the runs say nothing beside the paper: another recipe or other data."""
    return block.recipe != "paper" or bool(block.stand_in) or (block.model, block.data) not in BENCHMARKS


def leading_init(block: Block) -> str:
    """The scaffold that the recipe uses; where the benchmark names none, the one with the most ranks."""
    inits = [line.init for line in block.lines if line.condition == "scaffold" and line.rank]
    benchmark = BENCHMARKS.get((block.model, block.data))
    if benchmark and benchmark.init in inits:
        return benchmark.init
    return max(sorted(set(inits)), key=inits.count, default="")


def own_arms(block: Block, condition: str = "scaffold") -> Iterator[Line]:
    """Full training and the recipe's own arm at every rank, options aside."""
    init = leading_init(block)
    for line in block.lines:
        plain = (
            line.condition == condition and line.init in (init, "") and not line.options and not line.adapter
        )
        if (condition == "scaffold" and line.condition == "full") or (plain and line.rank):
            yield line
