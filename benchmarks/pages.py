"""The lines as a page of Markdown, a CSV file and a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.timing import FULL
from benchmarks.timing import Line
from benchmarks.timing import chip
from lottalora.analysis.paper import lines as published

ARMS = ("scaffold", "reference", "PEFT", "loralib")  # in the order of a table's columns
HEADINGS = {"layer": "Layers", "training step": "Training steps"}
TITLES = {
    "mlp": "MLP, MNIST",
    "cfc": "CfC, PhysioNet",
    "plain-20": "Plain-20, CIFAR-10",
    "vit": "ViT (small), Flowers-102",
    "decision_transformer": "Decision Transformer, HalfCheetah",
    "decision_transformer, no adapter dropout": "Decision Transformer, no adapter dropout",
    "gin": "GIN, MolHIV",
    "gcn": "GCN, Arxiv",
    "distilbert": "DistilBERT, IMDB",
    "gpt 3M": "GPT 3M, WikiText",
    "gpt 30M": "GPT 30M, WikiText",
}


def write(lines: Sequence[Line], folder: Path, device: str) -> None:
    """Write speed.md, speed.csv and speed.svg into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "speed.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Line._fields)
        writer.writerows(lines)
    (folder / "speed.md").write_text("\n".join(page(lines, device)) + "\n")
    draw(lines, folder / "speed.svg")


def page(lines: Sequence[Line], device: str) -> list[str]:
    """The page, line by line."""
    where = chip() if device == "cuda" else f"one thread of {chip()}"
    text = [
        *("---", "hide: [toc]", "---", ""),  # the tables need its room
        "# Speed",
        "",
        f"Measured by `make bench` on {where}, PyTorch {torch.__version__}.",
        "Of each arm: its time as a share of full training's in the same turn, the median and, in brackets,",
        "the smallest and the largest. Below 1 is faster. Of *÷ PEFT* the brackets hold a 95 % interval of",
        "the median, from 6 turns on. *Counted* is the share by operations alone, which bounds a long step.",
        "",
        "![Time of a training step relative to full training](speed.svg)",
    ]
    for group in dict.fromkeys(line.group for line in lines):
        text += ["", f"## {HEADINGS.get(group, group)}", "", *table(lines, group)]
    if device == "cuda":
        text += ["", "## Memory and tokens", "", *costs(lines)]
    return text + table_9(lines)


def table(lines: Sequence[Line], group: str) -> list[str]:
    """A row for each comparison of a group, a column for each of its arms."""
    mine = [line for line in lines if line.group == group]
    arms = [arm for arm in ARMS if any(line.arm == arm for line in mine)]
    with_peft = any(line.to_peft for line in mine)
    head = ["", "full, ms", *arms, *(["÷ PEFT"] if with_peft else []), "counted", "turns", "forms"]
    text = [row(head), "| :-- |" + " --: |" * (len(head) - 2) + " :-- |"]
    for name in dict.fromkeys(line.name for line in mine):
        by_arm = {line.arm: line for line in mine if line.name == name}
        ours, full = by_arm.get("scaffold"), by_arm.get(FULL)
        cells = [TITLES.get(name, name), f"{full.milliseconds:.1f}" if full else ""]
        cells += [share_of(by_arm[arm]) if arm in by_arm else "" for arm in arms]
        cells += [beside_peft(ours)] if with_peft else []
        limit = "" if ours is None or ours.limit is None else f"{ours.limit:.2f}"
        text.append(row([*cells, limit, str(max(line.turns for line in by_arm.values())),
                         ours.forms if ours else ""]))  # fmt: skip
    return text


def share_of(line: Line) -> str:
    return f"{line.ratio:.2f} [{line.smallest:.2f}–{line.largest:.2f}]"


def beside_peft(line: Line | None) -> str:
    """The scaffold's time ÷ PEFT's, with its interval where there is one."""
    if line is None or line.to_peft is None:
        return ""
    interval = f" [{line.peft_low:.2f}–{line.peft_high:.2f}]" if line.peft_low is not None else ""
    return f"{line.to_peft:.2f}{interval}"


def costs(lines: Sequence[Line]) -> list[str]:
    """Of each arm that was measured on a GPU: tokens a second and the peak of its memory."""
    text = [row(["", "arm", "tokens/s", "peak MB"]), "| :-- | :-- | --: | --: |"]
    for line in lines:
        numbers = ["" if n is None else f"{n:,.0f}" for n in (line.per_second, line.megabytes)]
        text.append(row([TITLES.get(line.name, line.name), line.arm, *numbers]))
    return text


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table_9(lines: Sequence[Line]) -> list[str]:
    """The paper's Table 9 beside what was measured here; nothing where nothing was."""
    paper = {
        (line["variant"], line["condition"], line["metric"]): line["mean"]
        for line in published()
        if line["table"] == "9"
    }
    rows = {(line.name, line.arm): line for line in lines}
    text = []
    for size in dict.fromkeys(size for size, _, _ in paper):
        full, ours = (rows.get((f"Table 9, {size}", arm)) for arm in (FULL, "scaffold"))
        if full is None or ours is None:
            continue
        gigabytes = [f"{line.megabytes / 1000:.1f}" for line in (full, ours)]
        theirs = [paper[size, condition, "peak_gpu_gb"] for condition in ("full", "scaffold")]
        ratio = paper[size, "scaffold", "throughput_ratio_to_full"]
        cells = [size, *gigabytes, *theirs, f"{1 / ours.ratio:.2f}", ratio]
        text.append(row(cells))
    head = "| scale | full, GB | scaffold, GB | full, paper | scaffold, paper | tokens/s ÷ full | paper |"
    return ["", "## Table 9", "", head, "|" + "---|" * 7, *text] if text else []


def draw(lines: Sequence[Line], path: Path) -> None:
    """One row of dots for each comparison, full training at 1."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "speed"  # so that the file is the same for the same lines
    from matplotlib import pyplot

    names = list(dict.fromkeys(line.name for line in lines))
    figure, axes = pyplot.subplots(figsize=(7, 1 + 0.3 * len(names)), layout="constrained")
    for arm in dict.fromkeys(line.arm for line in lines if line.arm != FULL):
        mine = [line for line in lines if line.arm == arm]
        places = [names.index(line.name) for line in mine]
        axes.plot([line.ratio for line in mine], places, "o", label=arm)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_yticks(range(len(names)), [TITLES.get(name, name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("time ÷ full training")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
