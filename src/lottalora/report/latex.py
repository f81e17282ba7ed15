r"""Blocks as LaTeX tables, for \input in a document; they need no package."""

import difflib
import math
import re
from collections.abc import Iterable
from collections.abc import Sequence

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.tables import COLUMNS
from lottalora.report.tables import LEFT
from lottalora.report.tables import cells
from lottalora.report.tables import headings
from lottalora.report.tables import notes

DEFAULT = ("condition", "rank", "n", "score", "recovery", "share", "paper", "difference")
MOST = 8  # columns that a page of text has room for
LONGEST = 40  # lines likewise
WIDEST = 40  # letters of a column that stays on one line, where the table is wider than the page
FLOATS = 12  # tables, after which they are set: LaTeX holds some fifty back and then gives up
SIZES = ((75, r"\small"), (90, r"\footnotesize"), (math.inf, r"\scriptsize"))  # by letters across a table
HEAD = r"""% Lines of booktabs.sty where the document loads it, plain ones otherwise.
\providecommand{\toprule}{\hline}
\providecommand{\midrule}{\hline}
\providecommand{\bottomrule}{\hline}"""


def latex(blocks: Iterable[Block], columns: Sequence[str] = DEFAULT) -> str:
    """One table for each block, with a label made of what it shows.

    Args:
        blocks: of the report.
        columns: names of COLUMNS, at most eight.
    """
    check(columns)
    labels: dict[str, int] = {}
    parts = [HEAD]
    for number, text in enumerate(each for block in blocks for each in tables(block, columns, labels)):
        if number and number % FLOATS == 0:
            parts.append(r"\clearpage")
        parts.append(text)
    return "\n\n".join(parts) + "\n"


def check(columns: Sequence[str]) -> None:
    """Refuse an unknown column, and more than fit.

    Raises:
        ValueError: one sentence with what is allowed.
    """
    for name in columns:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"Unknown column {name!r}.{meant} Known: {', '.join(COLUMNS)}.")
    if not columns or len(columns) > MOST:
        raise ValueError(
            f"--columns takes one to {MOST} names, got {len(columns)}. Known: {', '.join(COLUMNS)}."
        )


def tables(block: Block, columns: Sequence[str], labels: dict[str, int]) -> list[str]:
    """The table of a block; several, where it has more lines than a page."""
    starts = range(0, max(len(block.lines), 1), LONGEST)
    return [
        table(block, block.lines[start : start + LONGEST], columns, labels, start > 0) for start in starts
    ]


def table(
    block: Block, lines: list[Line], columns: Sequence[str], labels: dict[str, int], continued: bool
) -> str:
    """Return one LaTeX table of some lines and columns of a block."""
    said = (
        "Continued." if continued else " ".join(note for note in notes(block) if not note.startswith("[low"))
    )
    places = [COLUMNS.index(name) for name in columns]
    head = [headings(block.metric)[place] for place in places]
    texts = [[found[place] for place in places] for found in (chosen(line, block, columns) for line in lines)]
    body = [line_text(each) for each in texts]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    size = next(name for most, name in SIZES if sum(widths) <= most)
    folds = WIDEST if size == SIZES[-1][1] else math.inf
    letters = "".join(
        letter_of(place, wide=width > folds) for place, width in zip(places, widths, strict=True)
    )
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(block.title)}. {tex(said)}}}",
            rf"\label{{{label(block, labels)}}}",
            rf"{size}\setlength{{\tabcolsep}}{{3pt}}",
            rf"\begin{{tabular}}{{{letters}}}",
            r"\toprule",
            line_text(head),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def letter_of(place: int, wide: bool) -> str:
    """How the column at a place of COLUMNS is set: numbers to the right, words in lines if they are wide."""
    if place >= LEFT:
        return "r"
    return r"p{0.38\linewidth}" if wide else "l"


def chosen(line: Line, block: Block, columns: Sequence[str]) -> list[str]:
    """The cells of a line without intervals; the init stands with the condition if it has no column."""
    found = [cell.partition(" [")[0] for cell in cells(line, block.metric)]
    if "init" not in columns and found[1] != "–":
        found[0] = f"{found[0]}, {found[1]}"
    return found


def label(block: Block, labels: dict[str, int]) -> str:
    """tab:MODEL-DATA-SIZE with recipe and metric where they differ, and a number where two are the same."""
    recipe = "" if block.recipe == "paper" else block.recipe
    metric = "" if block.own else block.metric.of_part
    words = [block.model, block.data, block.size, recipe, metric]
    name = "tab:" + "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word) for word in words if word)
    labels[name] = labels.get(name, 0) + 1
    return name if labels[name] == 1 else f"{name}-{labels[name]}"


def line_text(texts: Iterable[str]) -> str:
    """Return one line of a LaTeX table."""
    return " & ".join(tex(text) for text in texts) + r" \\"


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", '"': r"{\textquotedblright}",
    "±": r"$\pm$", "†": r"$\dagger$", "–": "--", "−": "$-$", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$",
    "α": r"$\alpha$", "β": r"$\beta$", "ρ": r"$\rho$", "σ": r"$\sigma$", "ν": r"$\nu$", "λ": r"$\lambda$",
    "…": r"\ldots{}", "’": "'", "“": "``", "”": "''", "√": r"$\surd$", "→": r"$\to$",
    "²": "$^2$", "³": "$^3$",
}  # fmt: skip
NEGATIVE = re.compile(r"(?<![\w.-])-(?=\d)")  # not of 11k-steps nor of 1e-3


def tex(text: str) -> str:
    """The text with what LaTeX reads as commands escaped; a letter that pdfLaTeX has no font for is a ?."""
    text = NEGATIVE.sub("−", text)
    return "".join(TEX.get(letter, letter if ord(letter) < 0x180 else "?") for letter in text)
