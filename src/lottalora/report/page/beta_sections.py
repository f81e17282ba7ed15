"""The section on β: how much of the scaffold each arm keeps."""

from dataclasses import replace

from lottalora.report.main_blocks import is_shortened
from lottalora.report.main_blocks import main_blocks
from lottalora.report.page.section import Part
from lottalora.report.page.section import Section
from lottalora.report.page.section import Shown
from lottalora.report.pictures.beta import beta_picture

SAID = (
    "β scales the frozen weights of a matrix. It starts at 1; at 0 the scaffold would be gone. Each arm "
    "stands by itself: nothing is pooled over ranks, α or recipes. `figures/beta_*.svg` has other sizes and "
    "recipes."
)


def beta_sections(shown: Shown) -> list[Section]:
    """One section; a picture for each benchmark with β, those of the paper's protocol first."""
    parts = []
    for block in sorted(main_blocks(shown.blocks), key=is_shortened):
        picture = beta_picture(block, shown.name("beta", block)) if block.own else None
        if picture:
            recipe = "" if block.recipe == "paper" else f", {block.recipe}"
            if parts:  # folded away: one drawing for every screen
                picture = replace(picture, panels=picture.narrow, narrow=[])
            parts.append(Part(f"{block.pair_title}, {block.size}{recipe}", [picture]))
    sentences = [SAID] if parts else ["No run with a scaffold and adapters yet."]
    return [Section("beta", "β: how much of the scaffold is kept", "β", sentences=sentences, parts=parts)]
