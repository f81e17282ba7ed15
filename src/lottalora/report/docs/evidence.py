"""The blocks of docs/evidence.md: every number of the paper, the verdicts counted, and why cells differ."""

from collections import Counter

from lottalora.analysis.statistics import LEVEL
from lottalora.report.blocks import Block
from lottalora.report.docs.markdown import table_text
from lottalora.report.docs.markers import fills
from lottalora.report.evidence import ASK_WHY
from lottalora.report.evidence import KINDS
from lottalora.report.evidence import Finding
from lottalora.report.evidence import evidence_of
from lottalora.report.paper_cells import Cell
from lottalora.report.paper_cells import cells
from lottalora.report.reasons import reason_of
from lottalora.report.reasons import reasons


@fills
def evidence(blocks: list[Block]) -> str:
    """Every number of the paper, table by table."""
    found = evidence_of(blocks)
    head = ["benchmark", "condition", "rank", "metric", "paper", "ours", "verdict"]
    tables: dict[str, list[list[str]]] = {}
    for cell in cells():
        finding, line = found.find(cell), cell.line
        name = f"{line['benchmark']}, {line['variant']}"
        columns = [name, line["condition"], line["rank"] or "–", line["metric"], line["mean"]]
        tables.setdefault(line["table"], []).append([*columns, finding.ours, explained(cell, finding)])
    parts = []
    for number in sorted(tables, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0)):
        title = f"## Table {number}" if number.isdigit() else f"## Section {number.removeprefix('sec')}"
        parts += [title, table_text(head, tables[number], numbers=(4, 5))]
    return "\n\n".join(parts)


@fills
def evidence_counts(blocks: list[Block]) -> str:
    """How many of the paper's numbers have which verdict."""
    found = evidence_of(blocks)
    kinds = Counter(found.find(cell).kind for cell in cells())
    lines = [[said, str(kinds[kind])] for kind, said in KINDS.items()]
    return table_text(["the paper's numbers", str(kinds.total())], lines, numbers=[1])


@fills
def evidence_as_runs(blocks: list[Block]) -> str:
    """The same of those that are tested, if the paper's runs are taken to spread as ours."""
    found = evidence_of(blocks)
    kinds = Counter(found.find(cell).as_runs for cell in cells())
    return f"{kinds['agrees']} agree, {kinds['differs']} differ and {kinds['undecided']} are undecided"


@fills
def evidence_dependence(blocks: list[Block]) -> str:
    """On how many samples the tests rest, and what is left of them if their number is corrected for."""
    found = evidence_of(blocks)
    tested = [finding for cell in cells() if (finding := found.find(cell)).as_runs]
    differ, agree = ([each for each in tested if each.kind == kind] for kind in ("differs", "agrees"))
    samples, apart = (len({each.sample for each in some}) for some in (tested, differ))
    corrected = sum(each.p * len(tested) < LEVEL for each in differ)
    nonzero = sum(each.p < LEVEL for each in agree)
    return (
        f"the {len(tested)} tests are of {samples} samples of runs, the {len(differ)} that find a difference "
        f"of {apart}. After Bonferroni's correction {corrected} of these {len(differ)} are left; and of the "
        f"{len(agree)} that agree, {nonzero} differ too, by less than the margin"
    )


@fills
def evidence_reasons(blocks: list[Block]) -> str:
    """Why cells differ: each reason, how many cells it covers, and a sentence."""
    found = evidence_of(blocks)
    apart = [cell for cell in cells() if found.find(cell).kind in ASK_WHY]
    counts = Counter(reason.name for cell in apart if (reason := reason_of(cell)))
    covering = [reason for reason in reasons() if counts[reason.name]]
    lines = [[reason.link, str(counts[reason.name]), reason.sentence] for reason in covering]
    return table_text(["reason", "cells", "in a sentence"], lines, numbers=[1])


def explained(cell: Cell, finding: Finding) -> str:
    """The verdict, and where our number differs the name of the reason with a link."""
    reason = reason_of(cell) if finding.kind in ASK_WHY else None
    return f"{finding.verdict}: {reason.link}" if reason else finding.verdict
