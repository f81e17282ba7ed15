import csv
import io
from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_hex

from lottalora.report.beta import beta_caption
from lottalora.report.beta import betas_of
from lottalora.report.blocks import blocks_of
from lottalora.report.figures import COLOURS
from lottalora.report.figures import OTHERS
from lottalora.report.figures import PAPER
from lottalora.report.figures import draw_rank_curve
from lottalora.report.figures import rank_curve
from lottalora.report.figures import series_of
from lottalora.report.make import figure_name
from lottalora.report.recovery_bars import bars_of
from lottalora.report.recovery_bars import recovery_bars
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


def rank_sweep(**fields):
    rows = [make_row(**{"rank": r, "alpha": float(r), "seed": s} | fields) for r in (1, 2, 8) for s in (1, 2)]
    return [*rows, make_baseline(**fields)]


def axes_of(rows):
    (block,) = blocks_of(rows)
    return rank_curve(block, series_of(block)).axes[0]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_rank_axis_is_binary_with_the_ranks_themselves_as_ticks():
    axes = axes_of(rank_sweep())
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "8"]


def test_figure_says_metric_unit_and_number_of_seeds():
    axes = axes_of(rank_sweep())
    assert axes.get_ylabel() == "test accuracy (%)"
    assert any("n = 1–2 seeds" in text.get_text() for text in axes.texts)


def test_legend_names_each_condition_once_and_the_paper_only_where_it_has_points():
    assert legend(axes_of(rank_sweep())) == ["scaffold", "scaffold removed", "full training", PAPER]
    assert PAPER not in legend(axes_of(rank_sweep(sample=True)))


def test_a_long_recipe_takes_lines_and_not_the_width_of_the_axes():
    short, long = (
        axes_of(rank_sweep()),
        axes_of(rank_sweep(changed={f"data.option_{i}": i for i in range(30)})),
    )
    for axes in (short, long):
        axes.figure.draw_without_rendering()
    assert long.get_position().width == pytest.approx(short.get_position().width, rel=0.1)
    assert "\n" in long.texts[0].get_text()


@pytest.mark.filterwarnings("error:constrained_layout not applied")
def test_long_options_take_lines_of_the_legend_and_not_the_width_of_the_axes():
    options = {f"scaffold.option_{i}": i for i in range(8)}
    config = {"recipe": {"name": "paper"}}
    short, long = axes_of(rank_sweep()), axes_of(rank_sweep(changed=options, config=config))
    for axes in (short, long):
        axes.figure.draw_without_rendering()
    assert long.get_position().width > 0.6 * short.get_position().width
    assert "option_7=7" in legend(long)[0]


def test_bars_stand_under_the_names_of_their_blocks():
    figure = recovery_bars(bars_of(blocks_of([*rank_sweep(), *rank_sweep(size="tiny")])))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["mlp on mnist, medium", "mlp on mnist, tiny"]
    assert [text.get_position()[1] for text in axes.texts] == [0, 4]
    assert list(axes.get_yticks()) == [1, 2, 3, 5, 6, 7]
    assert axes.get_yticklabels()[3].get_text() == "r = 1, n = 2"


def test_runs_that_differ_in_alpha_alone_count_for_themselves():
    (block,) = blocks_of([make_row(alpha=2.0), make_row(alpha=8.0), make_baseline()])
    assert "n = 2 runs" in beta_caption(betas_of(block))


def test_more_inits_than_colours_are_drawn_in_grey_under_one_name():
    rows = [make_row(init=f"init{number}", arms={}) for number in range(10)]
    axes = axes_of(rows)
    assert legend(axes) == [f"scaffold, init{number}" for number in range(7)] + [OTHERS]
    drawn = [to_hex(container.lines[0].get_color()).upper() for container in axes.containers]
    assert len(drawn) == 10
    assert set(drawn) == {*COLOURS, "#B0B0B0"}


def test_numbers_of_the_figure_are_written_beside_it(tmp_path):
    (block,) = blocks_of(rank_sweep())
    paths = draw_rank_curve(block, "curve", tmp_path)
    assert [path.name for path in paths] == ["curve.png", "curve.svg", "curve.csv"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    lines = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    scaffold = [line for line in lines if line["series"] == "scaffold"]
    assert [(line["rank"], line["n"], float(line["mean"])) for line in scaffold] == [
        (rank, "2", pytest.approx(96.8)) for rank in ("1", "2", "8")
    ]
    assert float(scaffold[2]["paper"]) == pytest.approx(96.8)


def test_same_rows_draw_the_same_svg(tmp_path):
    (block,) = blocks_of(rank_sweep())
    first, second = (draw_rank_curve(block, name, tmp_path)[1].read_bytes() for name in ("a", "b"))
    assert first == second


def test_block_without_ranks_draws_nothing(tmp_path):
    (block,) = blocks_of([make_baseline()])
    assert draw_rank_curve(block, "curve", tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_figures_of_different_blocks_never_share_a_name():
    rows = [make_row(), make_row(recipe="short"), make_row(sample=True), make_row(size="tiny")]
    rows += [make_row(recipe="modified", changed={"lr": rate}) for rate in (1, 2, 3)]
    blocks = blocks_of(rows)
    names = [figure_name(block, blocks) for block in blocks]
    assert len(set(names)) == len(blocks) == 7
    assert "rank_curve_mlp_mnist_medium" in names


def test_scores_of_two_parts_never_share_a_name():
    rows = [make_row(further={"perplexity": 4.0, "validation_perplexity": 5.0})]
    blocks = blocks_of(rows)
    names = [figure_name(block, blocks) for block in blocks]
    assert names[1:] == [f"{names[0]}_{part}_perplexity" for part in ("test", "validation")]
