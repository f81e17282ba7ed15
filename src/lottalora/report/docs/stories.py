"""Two sentences for each benchmark, from stories.toml, with the numbers of the rows at hand."""

import re
import tomllib
from functools import cache
from importlib import resources

from lottalora.analysis.benchmarks import pair_title
from lottalora.report.blocks import Block
from lottalora.report.docs import numbers  # noqa: F401 - adds what the stories ask for to MAKERS
from lottalora.report.docs.markers import MAKERS
from lottalora.report.docs.markers import fills

MARKER = re.compile(r"\{([^}]*)\}")


@fills
def story(blocks: list[Block], model: str, data: str) -> str:
    """Both sentences for README and docs: `story mlp mnist`."""
    found = story_of(blocks, model, data)
    if not found:
        raise ValueError(f"there is no story of {model} on {data} that the rows can fill.")
    return " ".join(found)


@fills
def stories_of(blocks: list[Block], *pairs: str) -> str:
    """A list of stories: `stories_of resnet/cifar10 gin/molhiv`."""
    lines = []
    for pair in pairs:
        model, data = pair.split("/")
        lines.append(f"- **{pair_title(model, data)}.** {story(blocks, model, data)}")
    return "\n".join(lines)


def story_of(blocks: list[Block], model: str, data: str) -> list[str]:
    """What agrees with the paper and what does not, without sentences whose numbers the rows do not have."""
    found = []
    for text in stories().get(f"{model}_{data}", {}).values():
        try:
            found.append(MARKER.sub(lambda asked: number(blocks, model, data, asked[1]), text))
        except ValueError:
            continue
    return found


def number(blocks: list[Block], model: str, data: str, asked: str) -> str:
    """Return a number that a story asks for, as text."""
    name, *words = asked.split()
    return MAKERS[name](blocks, model, data, *words)


@cache
def stories() -> dict[str, dict[str, str]]:
    """MODEL_DATA → agrees and differs, as the file has them."""
    text = resources.files("lottalora.report.docs").joinpath("stories.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
