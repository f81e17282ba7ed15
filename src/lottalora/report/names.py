"""The names of a block's files: rank_curve_NAME.svg, beta_NAME.svg, families_NAME.svg."""

import hashlib
import json
import re

from lottalora.report.blocks import Block


def block_names(blocks: list[Block]) -> dict[int, str]:
    """id of a block → MODEL_DATA_SIZE, recipe if not the paper's, a digest where names would collide."""
    plain = [plain_name(block) for block in blocks]
    return {
        id(block): name if plain.count(name) == 1 else f"{name}_{told_apart(block)}"
        for block, name in zip(blocks, plain, strict=True)
    }


def plain_name(block: Block) -> str:
    """Return a block's name for files, of letters, digits, dots and dashes."""
    recipe = "" if block.recipe == "paper" else block.recipe
    metric = "" if block.own else block.metric.of_part
    stand_in = block.stand_in.removeprefix("built-in ")
    parts = [block.model, block.data, block.size, stand_in, recipe, metric]
    return re.sub(r"[^\w.-]", "_", "_".join(part for part in parts if part))


def told_apart(block: Block) -> str:
    """Return a short hash that tells blocks of one name apart."""
    apart = [
        block.changed,
        block.precision,
        block.full,
        block.fingerprint,
        block.metric.of_part,
        block.apart,
    ]
    return hashlib.sha256(json.dumps(apart, sort_keys=True).encode()).hexdigest()[:6]
