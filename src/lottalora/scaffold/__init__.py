r"""Frozen random weights with trained low-rank adapters, for any PyTorch model.

.. math:: h = \beta W_{seed}\, x + \frac{\alpha}{r} B A x + b

Source: "A Little Rank Goes a Long Way", arXiv 2604.08749, https://arxiv.org/abs/2604.08749
"""

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.architectures import ARCHITECTURES
from lottalora.scaffold.artifact.architectures import register_architecture
from lottalora.scaffold.artifact.loading import deviation
from lottalora.scaffold.artifact.loading import load
from lottalora.scaffold.artifact.loading import load_into
from lottalora.scaffold.artifact.reading import Artifact
from lottalora.scaffold.artifact.reading import read
from lottalora.scaffold.artifact.saving import save
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.families.family import FAMILIES
from lottalora.scaffold.families.family import Distribution
from lottalora.scaffold.families.family import Family
from lottalora.scaffold.families.family import family
from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.convolution import LottaConv1d
from lottalora.scaffold.layers.convolution import LottaConv2d
from lottalora.scaffold.layers.convolution import LottaConv3d
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.kinds import register_layer
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.layers.path import fused_as
from lottalora.scaffold.layers.path import paths_taken
from lottalora.scaffold.layers.path import set_fused
from lottalora.scaffold.merging.merge import merge
from lottalora.scaffold.merging.merged import Merged
from lottalora.scaffold.merging.unmerge import unmerge
from lottalora.scaffold.whole_model.backbone import beta_values
from lottalora.scaffold.whole_model.backbone import resample
from lottalora.scaffold.whole_model.backbone import set_backbone_seed
from lottalora.scaffold.whole_model.backbone import verify
from lottalora.scaffold.whole_model.fsdp import prepare_for_fsdp
from lottalora.scaffold.whole_model.materialize import materialize
from lottalora.scaffold.whole_model.ranks import share_ranks
from lottalora.scaffold.whole_model.regenerate import regenerated
from lottalora.scaffold.whole_model.removal import without_scaffold
from lottalora.scaffold.whole_model.scaffolds_per_row import scaffolds_per_row
from lottalora.scaffold.whole_model.several import Adapters
from lottalora.scaffold.whole_model.shards import shard
from lottalora.scaffold.wrapping.account import Account
from lottalora.scaffold.wrapping.account import Entry
from lottalora.scaffold.wrapping.wrap import wrap

__all__ = [
    "ARCHITECTURES",
    "FAMILIES",
    "Account",
    "Adapter",
    "Adapters",
    "Artifact",
    "Entry",
    "Family",
    "FrozenEmbedding",
    "Distribution",
    "LottaConv1d",
    "LottaConv2d",
    "LottaConv3d",
    "LottaLinear",
    "LottaWeight",
    "Merged",
    "Scaffold",
    "Source",
    "SplitAttention",
    "beta_values",
    "deviation",
    "draw",
    "family",
    "fused_as",
    "load",
    "load_into",
    "materialize",
    "merge",
    "paths_taken",
    "prepare_for_fsdp",
    "read",
    "regenerated",
    "register_architecture",
    "register_layer",
    "resample",
    "save",
    "scaffolds_per_row",
    "set_backbone_seed",
    "set_fused",
    "shard",
    "share_ranks",
    "unmerge",
    "verify",
    "without_scaffold",
    "wrap",
]
