"""The command that a row gives is the one that made it."""

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from lottalora.config.identity import changes
from lottalora.config.identity import digest
from lottalora.config.identity import identify
from lottalora.config.identity import portable
from lottalora.results.command import command_of
from lottalora.results.command import literal
from lottalora.results.command import overrides_of

TYPED = [
    "model=mlp data=digits rank=2 alpha=3 init.parameters.std=0.2",
    "model=mlp data=digits rank=2 data.batch_size=16 model.net.dropout=0.3 model.sizes.tiny.hidden=[8,4] "
    "model.size=tiny",
    "model=mlp data=digits mode=zero rank=3 adapter.rslora=true adapter.B_init=kaiming",
    "model=mlp data=digits mode=head seed=1 backbone_seed=2",
    "model=mlp data=digits mode=head model.keep=[head,'*.0'] optimizer.weight_decay=0 recipe.version=7",
    "model=distilbert data=imdb trainer.patience=null adapter.dropout=0.0",
    "model=distilbert data=imdb mode=baseline trainer.clip=null data.sample=true recipe_name=short",
    "model=gpt data=text data.root=x data.name=novels mode=resample_epoch model.place=all "
    "optimizer._target_=torch.optim.Adam",
    "model=gpt data=text data.root=x data.name=novels data.vocabulary=1024 "
    "model.size=golf_mlp model.place=mlp trainer.average=ema",
    "model=vit data=flowers102 mode=lora rank=4",
]


@pytest.mark.parametrize("words", TYPED)
def test_command_of_a_row_makes_a_row_of_the_same_digest(typed, words):
    cfg = typed(*words.split(" "))
    row = identify(cfg) | {"config": portable(cfg)}
    assert digest(typed(*overrides_of(row))) == row["digest"], command_of(row)


def test_command_is_short_where_nothing_was_changed(typed):
    cfg = typed("model=mlp", "data=digits", "rank=2")
    row = identify(cfg) | {"config": portable(cfg)}
    assert command_of(row) == (
        "python run.py model=mlp data=digits model.size=medium mode=scaffold init=normal_0.1 rank=2 seed=42"
    )


def test_an_option_set_back_to_its_default_counts_as_a_change(typed):
    """The recipe has patience 7, and null is left out of digests."""
    cfg = typed("model=distilbert", "data=imdb", "trainer.patience=null")
    assert HydraConfig.get().job.config_name == "config"
    assert changes(cfg) == {"steps.patience": None}


@pytest.mark.parametrize(
    "text",
    [
        "a,b",
        "a b",
        "a'b",
        'a"b',
        "a\\b",
        "a\\'b",
        "a\\\\'b",
        "a\\",
        "größe",
        "1_000",
        "null",
        "x-1/y.z",
        "a=b",
    ],
)
def test_hydra_reads_a_literal_as_the_text_that_it_was_made_of(text):
    override = OverridesParser.create().parse_override(f"key={literal(text)}")
    assert (override.is_sweep_override(), override.value()) == (False, text)
