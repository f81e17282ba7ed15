"""The lines as a page of Markdown, a CSV file and a picture."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.timing import FULL
from benchmarks.timing import Line
from benchmarks.timing import chip
from lottalora.analysis.paper import lines as published


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
        "# Speed",
        "",
        f"Measured by `make bench` on {where}, PyTorch {torch.__version__}. Ratios are to full",
        "training in the same turn: median, smallest and largest. The limit is of counted operations.",
        "",
        "![Time of a training step relative to full training](speed.svg)",
        "",
    ]
    gpu = device == "cuda"
    head = ["", "arm", "ms", "÷ full training [min–max]", "turns", "limit", "layers by form"]
    head += ["tokens/s", "peak MB"] if gpu else []
    text += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line in lines:
        cells = [
            f"{line.group}: {line.name}",
            line.arm,
            f"{line.milliseconds:.1f}",
            f"{line.ratio:.2f} [{line.smallest:.2f}–{line.largest:.2f}]",
            str(line.turns),
            "" if line.limit is None else f"{line.limit:.2f}",
            line.forms,
        ]
        if gpu:
            cells += ["" if n is None else f"{n:,.0f}" for n in (line.per_second, line.megabytes)]
        text.append(f"| {' | '.join(cells)} |")
    return text + table_9(lines)


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
        text.append(f"| {' | '.join(cells)} |")
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
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time ÷ full training")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
