"""Write an artifact as one HTML page that rebuilds the network from its seed and classifies drawn digits."""

import argparse
from pathlib import Path

HELP = "write an artifact as an HTML page that rebuilds, checks and runs it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", type=Path, metavar="MODEL.safetensors", help="from artifact=true or save")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: beside it, as .html)")


def run(asked: argparse.Namespace) -> int:
    """Write the page, unless it exists."""
    from lottalora.browser.page import write_page

    out = asked.out or asked.path.parent / f"{asked.path.stem}.html"
    size = write_page(asked.path, out)
    print(f"{out}: {size:,} bytes. Open it in a browser; it needs no network.")
    return 0
