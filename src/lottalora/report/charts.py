"""The pictures of the page as plotly figures: plain data. Colours are names that page.js looks up."""

import html
import math
from itertools import groupby

from lottalora.report.beta import beta_caption
from lottalora.report.beta import betas_of
from lottalora.report.blocks import Block
from lottalora.report.figures import Series
from lottalora.report.figures import runs_text
from lottalora.report.figures import series_of
from lottalora.report.figures import shown
from lottalora.report.recovery_bars import SAID
from lottalora.report.recovery_bars import Bar
from lottalora.report.recovery_bars import bars_of

SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "cross", "x", "diamond")
MANY = 300  # β values in one picture: above it the points are left out, and the boxes stay


def chart(data: list[dict], layout: dict, caption: str) -> dict:
    return {"data": data, "layout": layout, "caption": caption}


def rank_chart(block: Block) -> dict | None:
    series = series_of(block)
    if not series:
        return None
    ranks = sorted({line.rank for curve in series for line in curve.lines})
    data = [curve_trace(block, curve, place) for place, curve in enumerate(series)]
    data += full_trace(block, ranks) + paper_trace(block)
    layout = {
        "xaxis": {"type": "log", "title": {"text": "rank r, logarithmic"},
                  "tickvals": ranks, "ticktext": ranks,
                  "range": [math.log10(ranks[0] / 1.25), math.log10(ranks[-1] * 1.25)]},
        "yaxis": {"title": {"text": plain(f"{block.metric.part} {block.metric.label}")}},
        "shapes": full_band(block),
    }  # fmt: skip
    what = f"{block.metric.part.capitalize()} {block.metric.label}"
    caption = f"{what} against rank; mean ± std over {runs_text(series, block)}."
    return chart(data, layout, caption)


def curve_trace(block: Block, curve: Series, place: int) -> dict:
    lines = curve.lines
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(curve.name),
        "x": [line.rank for line in lines],
        "y": [shown(block, line.scores.mean) for line in lines],
        "error_y": {
            "type": "data",
            "array": [shown(block, line.scores.std) for line in lines],
            "thickness": 1.2,
        },
        "customdata": [[line.scores.n, 100 * line.recovery, line.percent_of_full] for line in lines],
        "hovertemplate": "r = %{x}: %{y:.4~f}, n = %{customdata[0]}<br>recovery %{customdata[1]:.1f} %<br>"
        "trains %{customdata[2]:.3~g} % of full<extra>%{fullData.name}</extra>",
        "line": {"color": colour(place)},
        "marker": {"color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 8},
    }


def full_trace(block: Block, ranks: list[int]) -> list[dict]:
    if block.baseline is None:
        return []
    level, n = shown(block, block.baseline.scores.mean), block.baseline.scores.n
    ends = [ranks[0] / 1.25, ranks[-1] * 1.25]
    return [
        {"type": "scatter", "mode": "lines", "name": f"full training, n = {n}", "x": ends,
         "y": [level, level],
         "line": {"color": "@ink", "width": 1.5}, "hovertemplate": "%{y:.4~f}<extra>full training</extra>"}
    ]  # fmt: skip


def full_band(block: Block) -> list[dict]:
    """± one standard deviation of full training."""
    if block.baseline is None or math.isnan(block.baseline.scores.std):
        return []
    mean, std = shown(block, block.baseline.scores.mean), shown(block, block.baseline.scores.std)
    return [{"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": mean - std, "y1": mean + std,
             "fillcolor": "@band", "line": {"width": 0}, "layer": "below"}]  # fmt: skip


def paper_trace(block: Block) -> list[dict]:
    points = [line for line in block.lines if line.condition == "scaffold" and line.paper]
    if not points:
        return []
    return [
        {"type": "scatter", "mode": "markers", "name": "paper, scaffold", "x": [line.rank for line in points],
         "y": [shown(block, line.paper.mean) for line in points],
         "marker": {"symbol": "diamond-open", "size": 12, "color": "@ink"},
         "hovertemplate": "r = %{x}: %{y:.4~f}<extra>paper</extra>"}
    ]  # fmt: skip


def bars_chart(blocks: list[Block]) -> dict | None:
    """One bar for each rank, grouped by block; the paper's recovery as a diamond on its bar."""
    bars = bars_of(blocks)
    if not bars:
        return None
    data = [bar_trace(bar.block, [bar], place) for place, bar in enumerate(bars)]
    labels = [plain(f"{bar.block.name}  r = {bar.line.rank}") for bar in bars]
    theirs = [place for place, bar in enumerate(bars) if not math.isnan(bar.paper)]
    if theirs:
        data.append(
            {"type": "scatter", "mode": "markers", "name": "paper", "x": [bars[p].paper for p in theirs],
             "y": theirs,
             "marker": {"symbol": "diamond", "size": 9, "color": "@card",
                        "line": {"color": "@ink", "width": 1.5}},
             "hovertemplate": "paper: %{x:.2f} %<extra></extra>"}
        )  # fmt: skip
    layout = {
        "height": 110 + 24 * len(bars),
        "showlegend": False,
        "bargap": 0.25,
        "xaxis": {"title": {"text": "recovery, %"}, "rangemode": "tozero"},
        "yaxis": {"tickvals": list(range(len(bars))), "ticktext": labels, "range": [len(bars) - 0.4, -0.6],
                  "automargin": True},
        "shapes": [{"type": "line", "yref": "paper", "x0": 100, "x1": 100, "y0": 0, "y1": 1,
                    "line": {"color": "@muted", "width": 1, "dash": "dot"}}],
    }  # fmt: skip
    return chart(
        data, layout, f"{SAID}; diamond: the paper's recovery at this size and rank. n is in the hover."
    )


def bar_trace(block: Block, bars: list[Bar], place: int) -> dict:
    metric = block.metric
    return {
        "type": "bar",
        "orientation": "h",
        "x": [bar.recovery for bar in bars],
        "y": [place],
        "error_x": {"type": "data", "array": [bar.spread for bar in bars], "color": "@ink", "thickness": 1.2},
        "marker": {"color": "@c0"},
        "customdata": [
            [plain(block.title), metric.text(bar.line.scores.mean), bar.line.scores.n] for bar in bars
        ],
        "hovertemplate": f"recovery %{{x:.2f}} %<br>{plain(metric.label)} %{{customdata[1]}}, "
        f"n = %{{customdata[2]}}, full {metric.text(block.baseline.scores.mean)}<br>"
        "%{customdata[0]}<extra></extra>",
    }


def beta_chart(block: Block) -> dict | None:
    """A box for each layer, by rank or, where several families were run, by family."""
    betas = betas_of(block)
    if not betas:
        return None
    several = len({beta.init for beta in betas}) > 1
    group = (lambda beta: (0, beta.init)) if several else (lambda beta: (beta.rank, f"r = {beta.rank}"))
    points = "all" if len(betas) <= MANY else False
    data = []
    for place, ((_, name), members) in enumerate(groupby(sorted(betas, key=group), key=group)):
        members = list(members)
        data.append(
            {"type": "box", "name": plain(name), "x": [plain(beta.layer) for beta in members],
             "y": [beta.value for beta in members],
             "marker": {"color": colour(place), "size": 4}, "line": {"width": 1.2},
             "boxpoints": points, "jitter": 0.4, "pointpos": 0,
             "hovertext": [f"seed {beta.seed}" for beta in members]}
        )  # fmt: skip
    layout = {
        "boxmode": "group",
        "xaxis": {"title": {"text": "layer, from input to output"}, "type": "category"},
        "yaxis": {"title": {"text": "β at the best epoch"}},
        "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                    "line": {"color": "@muted", "width": 1, "dash": "dot"}}],
    }  # fmt: skip
    return chart(data, layout, f"β starts at 1 (dotted). {beta_caption(betas)}.")


def cost_chart(blocks: list[Block]) -> dict | None:
    """Recovery against the share of parameters that is trained."""
    bars = bars_of([block for block in blocks if block.own])
    if not bars:
        return None
    data = []
    for place, (_, members) in enumerate(groupby(bars, key=lambda bar: bar.block.title)):
        members = list(members)
        data.append(
            {"type": "scatter", "mode": "lines+markers", "name": plain(members[0].block.name),
             "x": [bar.line.percent_of_full for bar in members], "y": [bar.recovery for bar in members],
             "customdata": [[bar.line.rank, bar.line.trainable] for bar in members],
             "line": {"color": colour(place)}, "marker": {"size": 8, "symbol": SYMBOLS[place % len(SYMBOLS)]},
             "hovertemplate": "r = %{customdata[0]}: %{y:.2f} %<br>%{customdata[1]:,} trained, "
             "%{x:.3~g} %<extra>%{fullData.name}</extra>"}
        )  # fmt: skip
    layout = {
        "xaxis": {"type": "log", "title": {"text": "trained parameters, % of the full model, logarithmic"}},
        "yaxis": {"title": {"text": "recovery, %"}},
    }
    return chart(
        data,
        layout,
        "Recovery of the test score against the trained share; one point for each rank, mean over seeds.",
    )


def colour(place: int) -> str:
    return f"@c{place}" if place < len(SYMBOLS) else "@muted"


def plain(text: str) -> str:
    """Plotly reads a little HTML in its texts; what comes from rows must not be any."""
    return html.escape(str(text), quote=False).replace("%{", "% {")
