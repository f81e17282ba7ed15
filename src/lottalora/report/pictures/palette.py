"""Colours, marks and type of every picture: one colour for a condition, wherever it is drawn."""

from lottalora.report.blocks import Line

# Okabe & Ito 2008: told apart with every common colour blindness. Marks differ as well, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D")
INK = "#14181F"
GREY = "#6B6B6B"
PALE = "#9AA3AF"  # controls of a shortened run
RULE = "#E1E5EB"
PAPER = "#FFFFFF"  # what lies behind the picture
RANKS = ("#9CCBEA", "#62ADDC", "#2F8FCB", "#0072B2", "#005485", "#00324F", "#7F3C8D")  # from low to high
CONDITIONS = {
    "full": (INK, "_"),
    "scaffold": (COLOURS[0], "o"),
    "no_scaffold": (COLOURS[1], "s"),
    "resample_epoch": (COLOURS[2], "v"),
    "resample_batch_k2": ("#8C6D31", "<"),
    "resample_microbatch_k4": (COLOURS[4], ">"),
    "zero_scaffold": (COLOURS[6], "^"),
    "head": (GREY, "_"),
    "small": ("#5B6C2E", "p"),
    "thawed": ("#A23B72", "h"),
    "full_from_scaffold": (GREY, "d"),
    "probe": (GREY, "_"),
    "lora": (COLOURS[5], "P"),
}
ADAPTERS = (COLOURS[3], COLOURS[4], "#8C6D31")  # scaffold + dora, + residual …, in the order of the lines
CONTROLS = (
    "no_scaffold", "zero_scaffold", "head", "small", "probe", "resample_epoch", "resample_batch_k2",
    "resample_microbatch_k4",
)  # fmt: skip
# Colour of a file → variable of page.css, by which the page changes it in the dark.
VARIABLES = (
    {colour: f"--c{place}" for place, colour in enumerate(COLOURS)}
    | {colour: f"--r{place}" for place, colour in enumerate(RANKS) if colour not in COLOURS}
    | {
        INK: "--ink",
        GREY: "--muted",
        PALE: "--pale",
        RULE: "--line",
        PAPER: "--card",
        ADAPTERS[2]: "--c7",
        "#5B6C2E": "--c8",
        "#A23B72": "--c9",
    }
)
TEXT = 11.5  # pixels of the page at its natural size, points of a file
STYLE = {
    "font.size": TEXT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "svg.fonttype": "none",
    "svg.hashsalt": "lottalora",  # the same picture is the same file
}


def colour_of(line: Line, shortened: bool = False) -> str:
    """The colour of a condition; greys in a run of another recipe or data set."""
    if shortened:
        return PALE if line.condition in CONTROLS else GREY
    if line.adapter:
        return ADAPTERS[sum(map(ord, line.adapter)) % len(ADAPTERS)]
    return CONDITIONS.get(line.condition, (GREY, "d"))[0]


def marker_of(line: Line) -> str:
    """Return the marker of a line's condition."""
    return "X" if line.adapter else CONDITIONS.get(line.condition, (GREY, "d"))[1]


def rank_colours(ranks: list) -> dict:
    """A blue for each rank, the darker the higher."""
    ranks = sorted(ranks)
    first = 3 if len(ranks) == 1 else 1 if len(ranks) < 4 else 0
    return {rank: RANKS[min(place + first, len(RANKS) - 1)] for place, rank in enumerate(ranks)}
