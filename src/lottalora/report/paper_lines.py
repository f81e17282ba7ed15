"""What was run of a benchmark by the paper's protocol."""

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line


def paper_block(blocks: list[Block], model: str, data: str, size: str) -> Block | None:
    """What was run of a benchmark by the paper's protocol on the real data; None if nothing was."""
    same = [block for block in blocks if (block.model, block.data, block.size) == (model, data, size)]
    return next(
        (block for block in same if block.recipe == "paper" and block.own and not block.stand_in), None
    )


def protocol_lines(block: Block, condition: str = "scaffold") -> list[Line]:
    """The lines with the paper's scaffold and nothing changed, by rank."""
    init = BENCHMARKS[block.model, block.data].init
    lines = [line for line in block.lines if line.condition == condition and line.init == init]
    return [line for line in lines if line.rank and not line.adapter and not line.options]
