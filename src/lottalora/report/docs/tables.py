"""What was run by the paper's protocol, as tables."""

from lottalora.analysis.benchmarks import NINE
from lottalora.report.blocks import Block
from lottalora.report.docs.find import find_block
from lottalora.report.docs.markdown import table_text
from lottalora.report.docs.markers import fills
from lottalora.report.number_text import percent
from lottalora.report.number_text import share
from lottalora.report.number_text import signed
from lottalora.report.paper_lines import paper_block
from lottalora.report.paper_lines import protocol_lines
from lottalora.report.score_text import line_text
from lottalora.report.score_text import named_text
from lottalora.report.tables import paper_cell


@fills
def headline(blocks: list[Block]) -> str:
    """What was run by the paper's protocol: full training and a few ranks of each benchmark.

    The ranks are 1, 8 and 32, or all that were run where none of these was.
    """
    head = ["benchmark", "", "trained, % of full", "test score", "recovery, %", "paper"]
    lines = []
    for benchmark in NINE:
        block = paper_block(blocks, benchmark.model, benchmark.data, benchmark.size)
        if block is None or block.baseline is None:
            continue
        lines_of_scaffold = protocol_lines(block)
        chosen = [line for line in lines_of_scaffold if line.rank in (1, 8, 32)] or lines_of_scaffold
        for place, line in enumerate([block.baseline, *chosen]):
            unit = block.metric.unit or block.metric.name
            name = f"{benchmark.title}, {unit}" if place == 0 else ""
            said = "full training" if line.rank is None else f"scaffold, r = {line.rank}"
            ours = named_text(line, block.metric)
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
                named_text(line, block.metric),
                percent(100 * line.recovery),
                line_text(arm, block.metric).partition(" (")[0] if arm else "",
                paper_cell(line, block.metric),
                signed(line.difference, block.metric),
            ]
        )
    return table_text(head, lines, numbers=range(1, 8))
