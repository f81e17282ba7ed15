"""Pictures as the page holds them: SVG within HTML, in the page's colours, each mark with its words."""

import html
import io
import multiprocessing
import re
import sys
from collections import Counter
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from lottalora.distributed.cores import cores
from lottalora.report.pictures.palette import STYLE
from lottalora.report.pictures.palette import VARIABLES
from lottalora.report.pictures.picture import UNIT
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen

COLOUR = re.compile("|".join(VARIABLES), re.IGNORECASE)
BY_LETTERS = {colour.lower(): f"var({name})" for colour, name in VARIABLES.items()}
# Of matplotlib's SVG: what is written before the drawing, and what says nothing that the page does not say.
HEAD = re.compile(r"^.*?<svg[^>]*>", re.DOTALL)
SPARE = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>|"
    r' transform="rotate\(-0 [^"]*\)"|font-family: [^;"]*;? ?| id="(?!mark\d|[mp][0-9a-f]{10}")[^"]*"',
    re.DOTALL,
)
TAGS = re.compile(r"<[^>]*>")
DIGITS = re.compile(r"(\d+\.\d\d)\d+")  # within tags: places and sizes
PATHS = re.compile(r'(?<= d=")[^"]*')
SPACES = re.compile(r" ?([A-Za-z]|$) ?")  # around the commands of a path, which need none
STYLES = re.compile(r' style="([^"]*)"')
TENTHS = re.compile(r' ([xy])="(-?\d+\.\d)\d+"')  # a mark's place, to a tenth of a pixel
GROUPS = re.compile(r"<g\b[^>]*(?<!/)>|</g>")
IDS = re.compile(r'(?<=["#])[mp][0-9a-f]{10}(?=[")])')
MARK = re.compile(r'<g id="(mark\d+)">')
SERIES = re.compile(r'(?<= data-series=")[^"]*')
FEWEST = 8  # panels that are worth a process


def panels_svg(panels: Sequence[tuple[Panel, str]]) -> list[str]:
    """Panels with their labels, drawn by one process on each core where there are many.

    The processes are forked, since what draws a panel is a function within a function, which pickle refuses.
    """
    processes = min(cores(), len(panels) // FEWEST) if sys.platform == "linux" else 1
    if processes < 2:
        return [panel_svg(*each) for each in panels]
    with multiprocessing.get_context("fork").Pool(processes, inherit, [panels]) as pool:
        return pool.map(inherited_svg, range(len(panels)), chunksize=1)


def inherit(panels: Sequence[tuple[Panel, str]]) -> None:
    """In a forked process: keep what it is to draw."""
    global inherited  # noqa: PLW0603  a worker has no other place
    inherited = panels


def inherited_svg(index: int) -> str:
    """In a forked process: draw one of the panels."""
    return panel_svg(*inherited[index])


def panel_svg(panel: Panel, label: str) -> str:
    """One panel at its natural size, which the page may shrink."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(panel.width / UNIT, panel.height / UNIT), facecolor="none")
        pen = panel.draw_on(figure, 0, 0)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    inside = HEAD.sub("", drawn.getvalue()).replace("xlink:href", "href")
    inside = TAGS.sub(lambda tag: DIGITS.sub(r"\1", tag[0]), SPARE.sub("", inside))
    inside = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", inside))
    inside = PATHS.sub(lambda found: SPACES.sub(r"\1", found[0]), inside)
    inside = STYLES.sub(lambda found: found[0].replace(": ", ":").replace("; ", ";"), inside)
    inside = TENTHS.sub(r' \1="\2"', inside)
    inside = COLOUR.sub(lambda found: BY_LETTERS[found[0].lower()], inside)
    inside = MARK.sub(lambda found: opening(pen, found[1]), without_bare_groups(inside))
    head = f'<svg class="panel" viewBox="0 0 {panel.width} {panel.height}" style="--natural: {panel.width}px"'
    return f'{head} role="img" aria-label="{html.escape(label)}">{inside}'.strip()


def with_shared_styles(drawings: Sequence[str]) -> tuple[list[str], str]:
    """The drawings with a class in place of each style that several marks have, and the rules of the classes.

    The outer `<svg>` keeps its own style, which names its natural width.
    """
    inside = [drawing.partition(">")[2] for drawing in drawings]
    uses = Counter(style for each in inside for style in STYLES.findall(each))
    names = {style: f"s{place}" for place, (style, count) in enumerate(uses.most_common()) if count > 1}

    def by_class(found: re.Match[str]) -> str:
        return f' class="{names[found[1]]}"' if found[1] in names else found[0]

    heads = [drawing.partition(">")[0] for drawing in drawings]
    shorter = [f"{head}>{STYLES.sub(by_class, each)}" for head, each in zip(heads, inside, strict=True)]
    return shorter, "".join(f".{name}{{{style}}}\n" for style, name in names.items())


def with_short_ids(drawings: Sequence[str]) -> list[str]:
    """The drawings with ids counted over the page, in place of the eleven letters of matplotlib."""
    names: dict[str, str] = {}
    return [
        IDS.sub(lambda found: names.setdefault(found[0], f"i{len(names)}"), drawing) for drawing in drawings
    ]


def with_short_series(text: str) -> str:
    """The page with its series, by which a legend finds its marks, counted in place of named in full."""
    names: dict[str, str] = {}
    return SERIES.sub(lambda found: names.setdefault(found[0], str(len(names))), text)


def without_bare_groups(text: str) -> str:
    """Groups that say nothing of what is in them go; what is in them stays."""
    stays: list[bool] = []  # for each group that is open

    def tag(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return found[0] if stays.pop() else ""
        stays.append(found[0] != "<g>")
        return found[0] if stays[-1] else ""

    return GROUPS.sub(tag, text)


def opening(pen: Pen, name: str) -> str:
    """Return the opening tag of a mark, with the words that it shows when pointed at."""
    series, words = pen.said[name]
    said, title = (
        (' class="said"', f"<title>{html.escape(words, quote=False)}</title>") if words else ("", "")
    )
    return f'<g{said} data-series="{html.escape(series)}">{title}'
