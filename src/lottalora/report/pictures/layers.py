"""One quantity of every layer, from input to output: a curve for each arm."""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from functools import partial
from statistics import fmean

from lottalora.report.csv_text import csv_text
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture

Curves = Mapping[str, Mapping[str, float]]  # arm → layer → value


def layer_pictures(
    lines: Iterable[Mapping], name: str, key: str, *, title: str, caption: str, label: str
) -> list[Picture]:
    """A picture for each block of an analysis of kept weights.

    Args:
        lines: its numbers.
        name: of the analysis, the first word of the files' names.
        key: of the quantity in a line.
        title: what follows the task in a title.
        caption: below the picture.
        label: of the quantity's axis.
    """
    blocks: dict[str, list[Mapping]] = {}
    for line in lines:
        blocks.setdefault(line["block"], []).append(line | {"value": line[key]})
    return [
        layer_picture(f"{name}_{found[0]['name']}", f"{found[0]['task']}: {title}", caption, label, found)
        for found in blocks.values()
    ]


def layer_picture(name: str, title: str, caption: str, label: str, lines: Iterable[Mapping]) -> Picture:
    """Return the picture of lines with `arm`, `layer` and `value`, averaged over what is left."""
    values: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        values.setdefault(line["arm"], {}).setdefault(line["layer"], []).append(line["value"])
    curves = {arm: {layer: mean(each) for layer, each in found.items()} for arm, found in values.items()}
    layers = list(dict.fromkeys(layer for curve in curves.values() for layer in curve))
    colours = {arm: COLOURS[place % len(COLOURS)] for place, arm in enumerate(curves)}
    panel = Panel(partial(draw, layers=layers, curves=curves, colours=colours), title=label)
    legend = [Mark(arm, arm, colour, "line") for arm, colour in colours.items()]
    numbers = csv_text(
        [
            {"arm": arm, "layer": layer, "value": value}
            for arm, curve in curves.items()
            for layer, value in curve.items()
        ]
    )
    return Picture(name, title, caption, [panel], legend, numbers)


def mean(values: Iterable[float]) -> float:
    """The mean of what is finite; NaN of nothing."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return fmean(known) if known else math.nan


def draw(pen: Pen, *, layers: list[str], curves: Curves, colours: dict[str, str]) -> None:
    """Draw one line an arm over the layers."""
    for arm, curve in curves.items():
        line = [curve.get(layer, math.nan) for layer in layers]
        (drawn,) = pen.axes.plot(range(len(layers)), line, color=colours[arm], marker="o", markersize=3)
        pen.note(drawn, arm, arm)
    pen.axes.set_xticks(range(len(layers)), [layer.rpartition(".")[2] for layer in layers])
    pen.axes.set_ylim(0, 1.02)
    pen.axes.set_xlabel("layer")
