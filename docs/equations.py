"""MkDocs hook: equations become MathML when the site is built, so that pages need no script and no network.

It handles `$…$`, `$$…$$` and, as the docstrings have them, Sphinx's `.. math::` blocks.
"""

import re
import textwrap
from xml.etree.ElementTree import Element
from xml.etree.ElementTree import fromstring

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor

DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. math:: *(?P<first>.*)\n(?P<rest>(?:(?P=indent) +\S.*(?:\n|$))*)", re.M
)


def on_config(config: dict) -> dict:
    """Called by MkDocs: add the extension to those of the pages and of the docstrings."""
    config["markdown_extensions"].append(Equations())
    return config


class Equations(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  the name is Markdown's
        md.preprocessors.register(Directives(md), "math_directives", 28)  # after code blocks are taken out
        md.inlinePatterns.register(Formula(r"\$\$(.+?)\$\$", md, "block"), "math_block", 186)
        md.inlinePatterns.register(
            Formula(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\w)", md, "inline"), "math", 185
        )


class Directives(Preprocessor):
    """Write `.. math::` blocks as `$$…$$`."""

    def run(self, lines: list[str]) -> list[str]:
        return DIRECTIVE.sub(as_dollars, "\n".join(lines) + "\n").split("\n")


def as_dollars(found: re.Match) -> str:
    latex = " ".join([found["first"], textwrap.dedent(found["rest"]).replace("\n", " ")]).strip()
    return f"{found['indent']}\n{found['indent']}$${latex}$$\n{found['indent']}\n"


class Formula(InlineProcessor):
    """A formula between dollars, as MathML."""

    def __init__(self, pattern: str, md: Markdown, display: str) -> None:
        super().__init__(pattern, md)
        self.display = display

    def handleMatch(self, found: re.Match, text: str) -> tuple[Element, int, int]:  # noqa: N802  as above
        latex = found[1].replace("_{seed}", r"_{\mathrm{seed}}")  # one word, not a product of four letters
        math = fromstring(re.sub(r' xmlns="[^"]*"', "", convert(latex, display=self.display)))
        return math, found.start(0), found.end(0)
