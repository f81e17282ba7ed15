"""The pictures: what is drawn where, in which colour, and what the files hold."""

import csv
import io
import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from lottalora.report.from_rows import ORDER
from lottalora.report.from_rows import blocks_of
from lottalora.report.names import block_names
from lottalora.report.page.html import SHAPES
from lottalora.report.page.html import own_file
from lottalora.report.page.svg import FEWEST
from lottalora.report.page.svg import panel_svg
from lottalora.report.page.svg import panels_svg
from lottalora.report.page.svg import with_shared_styles
from lottalora.report.pictures.beta import arms_of
from lottalora.report.pictures.beta import beta_picture
from lottalora.report.pictures.families import families_picture
from lottalora.report.pictures.families import sorted_families
from lottalora.report.pictures.headline import bests
from lottalora.report.pictures.headline import headline_picture
from lottalora.report.pictures.palette import ADAPTERS
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import CONDITIONS
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import PALE
from lottalora.report.pictures.palette import RANKS
from lottalora.report.pictures.palette import VARIABLES
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import figure_of
from lottalora.report.pictures.picture import save
from lottalora.report.pictures.rank_curves import rank_picture
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

PIXELS = re.compile(r"font-size: ?([\d.]+)px|font: [^;\"]*?([\d.]+)px")


def rank_sweep(ranks=(1, 2, 8), **fields):
    rows = [make_row(**{"rank": r, "alpha": float(r), "seed": s} | fields) for r in ranks for s in (1, 2)]
    return [*rows, make_baseline(**fields)]


def block_of(rows):
    return blocks_of(rows)[0]


def drawn(panel):
    figure = Figure(figsize=(5, 4))
    pen = panel.draw_on(figure, 0, 0)
    return pen


def labels(picture):
    return [mark.label for mark in picture.legend]


def colours(pen):
    """Series → the colours of its marks."""
    found = {}
    for artist in pen.axes.lines:
        if artist.get_gid() in pen.said:
            found.setdefault(pen.said[artist.get_gid()][0], set()).add(to_hex(artist.get_color()).upper())
    return found


def words(pen):
    return [said for _, said in pen.said.values() if said]


def test_rank_axis_is_binary_with_the_ranks_themselves_as_ticks():
    pen = drawn(rank_picture(block_of(rank_sweep()), "x").panels[0])
    assert pen.axes.get_xscale() == "log"
    assert [label.get_text() for label in pen.axes.get_xticklabels()] == ["1", "2", "8"]


def test_panel_says_metric_and_unit_and_caption_the_number_of_seeds():
    picture = rank_picture(block_of(rank_sweep()), "x")
    assert picture.panels[0].title == "Test accuracy (%)"
    assert "n = 1–2 seeds" in picture.caption


def test_controls_have_a_panel_of_their_own():
    rows = [*rank_sweep(), make_row(mode="zero", init="", rank=2, arms={}, score=0.4)]
    first, second = (drawn(panel) for panel in rank_picture(block_of(rows), "x").panels)
    assert set(colours(first)) == {"scaffold", "full", "paper"}
    assert {"scaffold removed", "zero scaffold"} <= set(colours(second))
    assert first.axes.get_ylim()[0] > 85 > second.axes.get_ylim()[0]


def test_a_condition_has_its_colour_whatever_stands_beside_it():
    alone = colours(drawn(rank_picture(block_of(rank_sweep(arms={})), "x").panels[0]))
    beside = [*rank_sweep(), *(make_row(init=f"a{number}", score=0.9) for number in range(20))]
    among = colours(drawn(rank_picture(block_of(beside), "x").panels[0]))
    assert alone["scaffold"] == among["scaffold"] == {COLOURS[0].upper()}


def test_every_condition_has_a_colour_of_the_page_and_a_mark_of_its_legend():
    assert set(CONDITIONS) == set(ORDER)
    assert {colour for colour, _ in CONDITIONS.values()} | {*ADAPTERS, *RANKS, GREY, PALE} <= set(VARIABLES)
    assert {mark for _, mark in CONDITIONS.values()} <= set(SHAPES)
    style = own_file("page.css")
    assert all(f"{name}: light-dark(" in style for name in VARIABLES.values())


def test_other_families_stay_out_of_the_rank_curves():
    rows = [*rank_sweep(), *(make_row(init=f"a{number}") for number in range(20))]
    assert labels(rank_picture(block_of(rows), "x"))[:2] == ["scaffold", "scaffold removed"]


def test_one_rank_is_a_point_and_no_curve():
    pen = drawn(rank_picture(block_of(rank_sweep(ranks=(8,))), "x").panels[0])
    lengths = [len(line.get_xdata()) for line in pen.axes.lines if line.get_linestyle() == "-"]
    assert max(lengths, default=0) <= 2 and all(line.get_label() != "scaffold" for line in pen.axes.lines)
    assert not [line for line in pen.axes.lines if line.get_linestyle() == "--"]


def test_intervals_are_bands_from_three_runs_on():
    few = drawn(rank_picture(block_of(rank_sweep()), "x").panels[0])
    rows = [make_row(rank=r, alpha=float(r), seed=s, score=0.9 + s / 100) for r in (1, 2) for s in range(3)]
    many = drawn(rank_picture(block_of([*rows, make_baseline()]), "x").panels[0])
    assert (len(few.axes.collections), len(many.axes.collections)) == (0, 1)


@pytest.mark.parametrize(("runs", "dots"), [(10, 1), (11, 0)])
def test_single_runs_are_dots_only_where_they_are_few(runs, dots):
    rows = [make_row(seed=seed, score=0.9 + seed / 1000) for seed in range(runs)]
    pen = drawn(rank_picture(block_of([*rows, make_baseline()]), "x").panels[0])
    assert sum(line.get_marker() == "." for line in pen.axes.lines) == dots


def test_shortened_runs_are_hollow_and_grey_and_smaller():
    real = rank_picture(block_of(rank_sweep()), "x")
    short = rank_picture(block_of(rank_sweep(recipe="short", changed={"epochs": 1})), "x")
    assert short.small and short.panels[0].width < real.panels[0].width
    found = set().union(*(colours(drawn(panel)).get(name, set()) for panel in short.panels
                          for name in ("scaffold", "scaffold removed")))  # fmt: skip
    assert found == {GREY, PALE}
    assert all(mark.hollow for mark in short.legend if mark.shape in "os")


def test_paper_is_in_the_legend_only_where_it_has_points():
    assert "the paper's number" in labels(rank_picture(block_of(rank_sweep()), "x"))
    assert "the paper's number" not in labels(rank_picture(block_of(rank_sweep(sample=True)), "x"))


def test_a_mark_says_score_n_recovery_and_the_share_above_chance():
    said = " ".join(words(drawn(rank_picture(block_of(rank_sweep()), "x").panels[0])))
    assert "scaffold, r = 8: 96.80 ± 0.00 %, n = 2; recovery 98.4 %, above chance 98.2 %" in said
    assert "paper, scaffold, r = 8: 96.80 (Table 14)" in said


def test_families_are_sorted_and_the_one_that_falls_out_is_named():
    scores = {"a": 0.96, "b": 0.962, "c": 0.961, "d": 0.963, "cauchy": 0.80}
    rows = [make_row(init=init, score=score, arms={}) for init, score in scores.items()]
    block = block_of([*rows, make_baseline()])
    picture = families_picture(block, "x")
    assert sorted_families(block, block.lines[1:]) == ["d", "b", "c", "a", "cauchy"]
    assert "below the others: Cauchy" in picture.caption
    pen = drawn(picture.panels[0])
    assert {"80.00", "96.30"} <= {text.get_text() for text in pen.axes.texts}
    assert pen.axes.get_xlim()[0] > 90  # cauchy is an arrow at the edge, and does not squeeze the others


def test_all_families_are_drawn_in_one_colour_a_rank():
    rows = [make_row(init=f"init{number}", rank=r, alpha=float(r)) for number in range(22) for r in (2, 8)]
    found = colours(drawn(families_picture(block_of(rows), "x").panels[0]))
    assert sorted(found) == ["r = 2", "r = 8"]
    assert all(len(colour) == 1 for colour in found.values())


def test_another_reading_of_a_family_is_one_of_its_own_parameters_and_no_other_option():
    def changed(key, **scaffold):
        told = {"recipe": {"name": "paper"}, "scaffold": {"parameters": {"std": 0.1}} | scaffold}
        return make_row(recipe="modified", changed={f"scaffold.{key}": 0.2}, config=told)

    plain = [make_row(init=init) for init in ("normal_0.1", "normal", "binary")]
    for others, drawn_too in (([changed("parameters.std")], True), ([changed("train_beta")], False)):
        picture = families_picture(block_of([*plain, *others]), "x")
        assert ("another reading of its parameters" in labels(picture)) == drawn_too


def test_variations_of_a_single_run_have_no_curve_where_there_are_many_arms():
    def variations(count, seeds):
        return [
            make_row(seed=seed, config={"scaffold": {"dropout": place / 100}})
            for place in range(1, count + 1)
            for seed in seeds
        ]

    few, single, double = (
        rank_picture(block_of([*rank_sweep(), *rows]), "x")
        for rows in (variations(5, [1]), variations(20, [1]), variations(20, [1, 2]))
    )
    assert [sum("dropout" in label for label in labels(each)) for each in (few, single, double)] == [
        10,
        0,
        40,
    ]
    assert "Variations of a single run have no curve; the table has them" in single.caption
    assert not any("no curve" in each.caption for each in (few, double))


def test_two_families_make_no_picture():
    assert families_picture(block_of([make_row(), make_row(init="normal")]), "x") is None


def test_beta_is_never_pooled_over_ranks_or_alpha():
    rows = [make_row(rank=r, alpha=a, seed=s) for r, a in ((2, 2.0), (8, 8.0), (8, 1.0)) for s in (1, 2)]
    rows = [row | {"changed": {"scaffold.alpha": row["alpha"]} if row["alpha"] == 1.0 else {},
                   "recipe": "modified" if row["alpha"] == 1.0 else "paper",
                   "config": {"recipe": {"name": "paper"}}} for row in rows]  # fmt: skip
    arms = arms_of(block_of(rows))
    assert [arm.name for arm in arms] == ["r = 2", "r = 8", "r = 8, α = 1.0"]
    assert all(len(values) == 2 for arm in arms for values in arm.by_layer.values())


@pytest.mark.parametrize(("runs", "boxes"), [(4, 0), (5, 1)])
def test_beta_stays_points_below_five_runs(runs, boxes):
    rows = [make_row(seed=seed, beta={"layers.0": 0.9 + seed / 100}) for seed in range(runs)]
    pen = drawn(beta_picture(block_of(rows), "x").panels[0])
    assert sum(line.get_linewidth() == 5 for line in pen.axes.lines) == boxes
    assert any("0.900 (seed 0), 0.910 (seed 1)" in said for said in words(pen))


def test_headline_has_the_nine_and_both_scores_of_halfcheetah():
    found = bests(blocks_of(rank_sweep()))
    assert len(found) == 10
    assert [best.title for best in found if "HalfCheetah" in best.title] == [
        "HalfCheetah, Decision Transformer: MSE",
        "HalfCheetah, Decision Transformer: D4RL score",
    ]
    assert found[0].runs_said == "r = 1, n = 2, above chance 98.2 %"


def test_headline_prints_its_values_on_an_axis_of_50_to_105_percent():
    pen = drawn(headline_picture(blocks_of(rank_sweep(score=0.9))).panels[0])
    assert pen.axes.get_xlim() == (50, 105)
    printed = {text.get_text() for text in pen.axes.texts}
    assert {"100.0", "99.4", "not run yet"} <= printed


def test_shortened_run_never_counts_in_the_headline():
    rows = rank_sweep(recipe="short", changed={"epochs": 1})
    best = bests(blocks_of(rows))[0]
    assert not best.counts and best.runs_said.endswith("; shortened")
    assert bests(blocks_of([*rows, *rank_sweep(score=0.5)]))[0].counts


def test_headline_takes_the_main_shortened_runs_and_not_the_luckiest():
    """A test run of one rank, in which all arms are as bad as each other, would recover more."""
    longer = {"recipe": "5-epochs", "changed": {"trainer.epochs": 5}}
    shorter = {"recipe": "1-epoch", "changed": {"trainer.epochs": 1}}
    rows = [make_row(rank=rank, score=0.8, **longer) for rank in (2, 4)] + [
        make_baseline(score=0.9, **longer)
    ]
    rows += [make_row(score=0.3, **shorter), make_baseline(score=0.3, **shorter)]
    best = bests(blocks_of(rows))[0]
    assert (best.block.recipe, round(best.line.recovery, 3)) == ("5-epochs", 0.889)


def test_numbers_of_the_picture_are_written_beside_it(tmp_path):
    paths = save(rank_picture(block_of(rank_sweep()), "curve"), tmp_path)
    assert [path.name for path in paths] == ["curve.png", "curve.svg", "curve.csv"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(paths[1]).getroot().tag.endswith("svg")
    lines = list(csv.DictReader(io.StringIO(paths[2].read_text())))
    scaffold = [line for line in lines if line["series"] == "scaffold"]
    assert [(line["rank"], line["n"], float(line["mean"])) for line in scaffold] == [
        (rank, "2", pytest.approx(96.8)) for rank in ("1", "2", "8")
    ]
    assert float(scaffold[2]["paper"]) == pytest.approx(96.8)


def test_same_rows_draw_the_same_files(tmp_path):
    first, second = (
        save(rank_picture(block_of(rank_sweep()), name), tmp_path)[1].read_bytes() for name in "ab"
    )
    assert first == second


def test_a_long_recipe_takes_lines_and_not_the_width_of_the_panels():
    changed = {f"data.option_{number}": number for number in range(30)}
    short, long = (
        figure_of(rank_picture(block_of(rank_sweep(recipe="modified", changed=change)), "x"))
        for change in ({}, changed)
    )
    assert short.get_figwidth() == long.get_figwidth()
    assert long.get_figheight() > short.get_figheight()


def test_block_without_ranks_has_no_picture():
    assert rank_picture(block_of([make_baseline()]), "x") is None


def test_svg_of_the_page_is_xml_with_the_pages_colours_and_text_of_11_pixels():
    pictures = [headline_picture(blocks_of(rank_sweep())), rank_picture(block_of(rank_sweep()), "x"),
                beta_picture(block_of(rank_sweep()), "x")]  # fmt: skip
    for picture in pictures:
        for panel in (*picture.panels, *picture.narrow):
            text = panel_svg(panel, "said")
            ElementTree.fromstring(text)
            sizes = [float(one or other) for one, other in PIXELS.findall(text)]
            assert sizes and min(sizes) >= 11
            assert "var(--ink)" in text and "#0072b2" not in text.lower()
    assert all(panel.width <= 360 for picture in pictures for panel in picture.narrow or picture.panels)


def test_a_number_of_a_picture_keeps_its_digits_on_the_page():
    panel = Panel(lambda pen: pen.axes.set_yticks([0.035, 0.0375, 0.04], ["0.0350", "0.0375", "0.0400"]))
    assert re.findall(r">(0\.\d+)<", panel_svg(panel, "said"))[-3:] == ["0.0350", "0.0375", "0.0400"]


def test_panels_drawn_in_several_processes_are_those_drawn_in_one(monkeypatch):
    monkeypatch.setattr("lottalora.report.page.svg.cores", lambda: 2)
    (panel, *_) = rank_picture(block_of(rank_sweep()), "x").panels
    several = [(panel, f"said {place}") for place in range(2 * FEWEST)]
    assert panels_svg(several) == [panel_svg(*each) for each in several]


def test_marks_of_one_style_share_a_class_and_lose_nothing():
    styles = {"p": "fill:red", "q": "fill:none;stroke:blue"}
    drawings = [
        f'<svg style="--natural: 9px"><path style="{styles["p"]}"/><path style="{styles["q"]}"/>'
        f'<g class="mark"><path style="fill:{alone}"/></g></svg>'
        for alone in ("green", "black")
    ]
    shorter, rules = with_shared_styles(drawings)
    by_class = dict(re.findall(r"\.(\w+)\{(.*)\}", rules))
    assert sorted(by_class.values()) == sorted(styles.values())
    assert [
        re.sub(r'class="(s\d+)"', lambda found: f'style="{by_class[found[1]]}"', each) for each in shorter
    ] == drawings


def test_arms_with_options_are_told_apart_by_their_marks():
    arms = [{}, {"train_beta": False}, {"rslora": True}, {"dropout": 0.1}]
    rows = [row for arm in arms for row in rank_sweep(config={"scaffold": arm})]
    marks = {mark.label: mark.shape for mark in rank_picture(block_of(rows), "x").legend}
    hollow = {label: shape for label, shape in marks.items() if label.startswith("scaffold, ")}
    assert len(hollow) > 1 and len(set(hollow.values())) == len(hollow)


def test_words_of_a_row_cannot_become_markup_in_a_picture():
    block = block_of(
        rank_sweep(recipe="modified", changed={"scaffold.note": "<b>&"}, config={"recipe": {"name": "paper"}})
    )
    ElementTree.fromstring(panel_svg(rank_picture(block, "x").panels[0], "said"))


def test_pictures_of_different_blocks_never_share_a_name():
    rows = [make_row(), make_row(recipe="short"), make_row(sample=True), make_row(size="tiny")]
    rows += [make_row(recipe="modified", changed={"lr": rate}) for rate in (1, 2, 3)]
    names = block_names(blocks_of(rows)).values()
    assert len(set(names)) == len(names) == 7
    assert "mlp_mnist_medium" in names


def test_scores_of_two_parts_never_share_a_name():
    rows = [make_row(further={"perplexity": 4.0, "validation_perplexity": 5.0})]
    names = list(block_names(blocks_of(rows)).values())
    assert names[1:] == [f"{names[0]}_{part}_perplexity" for part in ("test", "validation")]


def test_pictures_leave_matplotlibs_settings_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    save(rank_picture(block_of(rank_sweep()), "x"), tmp_path)
    assert dict(matplotlib.rcParams) == before
