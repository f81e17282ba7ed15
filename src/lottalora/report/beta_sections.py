"""The section on β: how much of the scaffold each arm keeps."""

from lottalora.report.beta import beta_picture
from lottalora.report.section import Part
from lottalora.report.section import Section
from lottalora.report.section import Shown

SAID = (
    "β scales the frozen weights of a matrix. It starts at 1; at 0 the scaffold would be gone. Each arm "
    "stands by itself: nothing is pooled over ranks, α or recipes."
)


def beta_sections(shown: Shown) -> list[Section]:
    """One section; a picture for each block with β, those of the paper's protocol first."""
    parts = []
    for block in sorted(shown.blocks, key=lambda block: block.recipe != "paper" or bool(block.stand_in)):
        picture = beta_picture(block, shown.name("beta", block)) if block.own else None
        if picture:
            recipe = "" if block.recipe == "paper" else f", {block.recipe}"
            parts.append(Part(f"{block.pair_title}, {block.size}{recipe}", [picture]))
    sentences = [SAID] if parts else ["No run with a scaffold and adapters yet."]
    return [Section("beta", "β: how much of the scaffold is kept", "β", sentences=sentences, parts=parts)]
