"""One story for each benchmark, in the paper's order: sentences, a figure, a table; the rest is folded."""

import math
from dataclasses import replace

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import pair_title
from lottalora.analysis.result import Table
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.docs.stories import story_of
from lottalora.report.main_blocks import by_benchmark
from lottalora.report.main_blocks import is_shortened
from lottalora.report.main_blocks import main_block
from lottalora.report.main_blocks import own_arms
from lottalora.report.number_text import margin_text
from lottalora.report.number_text import percent
from lottalora.report.number_text import share
from lottalora.report.number_text import signed
from lottalora.report.number_text import with_interval
from lottalora.report.page.section import Part
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown
from lottalora.report.pictures.families import families_picture
from lottalora.report.pictures.rank_curves import rank_picture
from lottalora.report.tables import LEFT
from lottalora.report.tables import cells
from lottalora.report.tables import difference_heading
from lottalora.report.tables import headings
from lottalora.report.tables import notes
from lottalora.report.tables import paper_cell
from lottalora.report.tables import part_and_label
from lottalora.report.tables import wide_margin

FEWEST = 3  # runs, from which on a spread is stated


def benchmark_sections(shown: Shown) -> list[Section]:
    """The nine, those that the paper has beside them, then what else was run."""
    pairs = by_benchmark(shown.blocks)
    return [section_of(pair, blocks, shown) for pair, blocks in sorted(pairs.items(), key=paper_order)]


def paper_order(item: tuple) -> tuple:
    """Return the sort key of a benchmark: the paper's order, others behind it."""
    pair, _ = item
    places = {key: place for place, key in enumerate((each.model, each.data) for each in NINE)}
    same_data = [place for key, place in places.items() if key[1] == pair[1]]
    beside = (
        same_data[0] if same_data and pair in BENCHMARKS else len(places)
    )  # ViT from a random start: after ViT
    return places.get(pair, beside), pair not in places, pair


def section_of(pair: tuple[str, str], blocks: list[Block], shown: Shown) -> Section:
    """The page's section of one benchmark; of further scores those of its main runs (the CSV has all)."""
    title, anchor = pair_title(*pair), f"{pair[0]}-{pair[1]}"
    of_data = title.partition(",")[0] if pair in BENCHMARKS else title  # two models may share their data
    short = of_data if pair != ("vit_random", "flowers102") else "Random ViT"
    if not blocks:
        command = f"python run.py -m model={pair[0]} data={pair[1]} mode=baseline,scaffold"
        return Section(anchor, title, short, "not run yet", False, command=command)
    main = main_block(pair, blocks)
    further = [b for b in blocks if not b.own and b.metric.paper_name and same_runs(b, main)]
    told = story_of(shown.blocks, main.model, main.data)
    picture = rank_picture(main, shown.name("rank_curve", main), further)
    families = families_picture(main, shown.name("families", main))
    pictures = [each for each in (picture, families) if each]
    count = "The line" if len(main.lines) == 1 else f"All {len(main.lines)} lines"
    parts = [Part(f"{count} of {main.title}", tables=[full_table(main)])]
    parts += [
        part_of(each, shown) for each in blocks if each is not main and (each.own or same_runs(each, main))
    ]
    return Section(
        anchor, title, short, state_of(main), not is_shortened(main),
        sentences=[" ".join(told)] * bool(told) + agreement(main),
        pictures=pictures, tables=[arm_table(main, further)], parts=parts,
    )  # fmt: skip


def same_runs(block: Block, other: Block) -> bool:
    """Return whether two blocks are scores of the same runs."""
    keys = ("model", "data", "size", "recipe", "changed", "precision", "full", "fingerprint")
    return all(getattr(block, key) == getattr(other, key) for key in keys)


def state_of(block: Block) -> str:
    """Say in words why the block is no reproduction; "" if it is one."""
    if (block.model, block.data) not in BENCHMARKS or block.stand_in:
        return "other data than the paper's"
    return "" if block.recipe == "paper" else "shortened"


def part_of(block: Block, shown: Shown) -> Part:
    """Return a block's pictures and table, for the folded part of a section."""
    picture = rank_picture(block, shown.name("rank_curve", block))
    families = families_picture(block, shown.name("families", block))
    if families:  # one drawing for every screen: it is folded away
        families = replace(families, panels=families.narrow, narrow=[])
    return Part(block.title, [each for each in (picture, families) if each], [full_table(block)])


def agreement(block: Block) -> list[str]:
    """What the tests beside the paper's numbers say of the recipe's own arm, in one line; [] without any."""
    lines = [line for line in own_arms(block) if line.verdict]
    if not lines:
        return []
    groups: dict[str, list[str]] = {}
    for line in lines:
        kind = "untested" if "untested" in line.verdict else line.verdict
        name = "full training" if line.rank is None else f"r = {line.rank}"
        untested = f" ({line.verdict.partition(' (')[0]})" if kind == "untested" else ""
        apart = f" ({signed(line.difference, block.metric)})" if kind in ("above", "below") else ""
        groups.setdefault(kind, []).append(name + apart + untested)
    words = {
        "agrees": f"Agrees with the paper to within {margin_text(block.metric)}, by a test",
        "above": "Above the paper",
        "below": "Below the paper",
        "undecided": "Undecided",
        "untested": "Too few runs for a test",
    }
    said = [f"{words[kind]}: {', '.join(groups[kind])}." for kind in words if kind in groups]
    return [" ".join([*said, wide_margin(block)]).strip()]


def arm_table(block: Block, further: list[Block]) -> Table:
    """Full training and the recipe's arm at every rank, a recovery with its n and its share above chance."""
    metric = block.metric
    beside = [{line.rank: line for line in own_arms(each)} for each in further]
    controls = {
        name: {line.rank: line for line in own_arms(block, name)} for name in ("no_scaffold", "zero_scaffold")
    }
    controls = {name: found for name, found in controls.items() if found}
    with_paper = any(line.paper for line in own_arms(block))
    head = [
        "",
        "rank",
        "n",
        part_and_label(metric) if further else metric.label,
        *(part_and_label(each.metric) for each in further),
        "recovery, %",
        "above chance, %",
    ]
    head += ["trained, % of full"] + [
        {"no_scaffold": "scaffold removed", "zero_scaffold": "zero scaffold"}[name] for name in controls
    ]
    head += ["paper", difference_heading(metric), "verdict"] if with_paper else []
    lines = []
    for line in own_arms(block):
        cells = [
            line.label,
            "–" if line.rank is None else str(line.rank),
            str(line.scores.n),
            score_text(block, line),
        ]
        cells += [score_text(each, found.get(line.rank)) for each, found in zip(further, beside, strict=True)]
        cells += [
            percent(100 * line.recovery),
            percent(100 * line.share_above_chance),
            share(line.percent_of_full),
        ]
        arms = [found.get(line.rank) if line.rank else None for found in controls.values()]
        cells += [score_text(block, arm).partition(" [")[0] for arm in arms]
        if with_paper:
            cells += [paper_cell(line, metric), signed(line.difference, metric), short_verdict(line)]
        lines.append(cells)
    said = f"{block.size}, {block.full:,} parameters, {block.recipe_text}"
    return Table("", head, 1, lines, [f"{said[0].upper()}{said[1:]}. {notes(block)[0]}", *notes(block)[1:]])


def short_verdict(line: Line) -> str:
    """The table has a column for n already."""
    side, _, rest = line.verdict.partition(" the margin")
    return f"untested, {side}" if rest else line.verdict or "–"


def score_text(block: Block, line: Line | None) -> str:
    """Mean ± deviation and interval from three runs on; below that the runs themselves."""
    if line is None:
        return "–"
    if line.scores.n >= FEWEST:
        return with_interval(line.scores, block.metric)
    scores = [score for score in line.by_seed.values() if score is not None and math.isfinite(score)]
    return ", ".join(block.metric.text(score) for score in scores) or "diverged"


def full_table(block: Block) -> Table:
    """Return the table of all lines of a block."""
    return Table(
        "", headings(block.metric), LEFT, [cells(line, block.metric) for line in block.lines], notes(block)
    )
