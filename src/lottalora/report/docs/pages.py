"""Write into README and docs what the rows say: text between markers, and the figures.

A marker names the block that fills it and its arguments. A table stands on lines of its own, a number within
a sentence:

    <!-- rows: table mlp mnist medium -->
    …
    <!-- /rows -->

    Rank 8 reaches <!-- rows: score mlp mnist medium scaffold 8 -->…<!-- /rows -->.
"""

import inspect
import re
from pathlib import Path

from lottalora.report.blocks import Block
from lottalora.report.docs import evidence  # noqa: F401 - adds its blocks to MAKERS
from lottalora.report.docs import families  # noqa: F401 - likewise
from lottalora.report.docs import numbers  # noqa: F401 - likewise
from lottalora.report.docs import readings  # noqa: F401 - likewise
from lottalora.report.docs import shortened  # noqa: F401 - likewise
from lottalora.report.docs import stories  # noqa: F401 - likewise
from lottalora.report.docs import tables  # noqa: F401 - likewise
from lottalora.report.docs.markers import MAKERS
from lottalora.results.atomic_write import write_whole

MARKED = re.compile(r"<!-- rows: (?P<asked>[^>]*?) -->(?P<text>.*?)<!-- /rows -->", re.DOTALL)
FIGURES = Path("docs/figures")


def stale(root: Path, blocks: list[Block]) -> list[Path]:
    """The pages and figures under `root` that do not say what the rows say."""
    from lottalora.report.docs.figure import is_current

    pages = [page for page, (old, new) in filled_pages(root, blocks).items() if old != new]
    return pages + ([] if is_current(root / FIGURES, blocks) else [root / FIGURES])


def write(root: Path, blocks: list[Block]) -> list[Path]:
    """Bring the pages and figures under `root` up to date, and give those that changed.

    Raises:
        FileNotFoundError: there is no README.md with markers.
        ValueError: a marker asks for what no block or no row has; names the page.
    """
    from lottalora.report.docs.figure import draw
    from lottalora.report.docs.figure import is_current

    changed = []
    for page, (old, new) in filled_pages(root, blocks).items():
        if old != new:
            write_whole(page, new)
            changed.append(page)
    if not is_current(root / FIGURES, blocks):
        changed.append(draw(root / FIGURES, blocks))
    return changed


def filled_pages(root: Path, blocks: list[Block]) -> dict[Path, tuple[str, str]]:
    """Page → its text as it stands, and as the rows would have it."""
    pages = [root / "README.md", *sorted((root / "docs").glob("**/*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages if page.is_file()}
    if not any(MARKED.search(text) for text in texts.values()):
        raise FileNotFoundError(
            f"No README.md or docs/*.md with markers `<!-- rows: … -->` in {root}. "
            "Name the repository: report --docs DIR."
        )
    filled = {}
    for page, text in texts.items():
        try:
            filled[page] = text, fill(text, blocks)
        except ValueError as error:
            raise ValueError(f"{page}: {error}") from error
    return filled


def fill(text: str, blocks: list[Block]) -> str:
    """The text with what stands between its markers made anew."""
    return MARKED.sub(lambda found: filled(found, blocks), text)


def filled(found: re.Match, blocks: list[Block]) -> str:
    """Return a marked block with its text made anew; raise ValueError for a wrong marker."""
    asked, on_lines = found["asked"], found["text"].startswith("\n")
    name, *words = asked.split()
    if name not in MAKERS:
        raise ValueError(f"no block is called {name!r}. Known: {', '.join(sorted(MAKERS))}.")
    try:
        inspect.signature(MAKERS[name]).bind(blocks, *words)
    except TypeError as error:
        raise ValueError(f"the marker `{asked}` has {error}.") from error
    text = MAKERS[name](blocks, *words)
    inside = f"\n\n{text}\n\n" if on_lines else text
    return f"<!-- rows: {asked} -->{inside}<!-- /rows -->"
