"""The HTML page, in a real Chromium."""

import html
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from lottalora.cli.main import main
from lottalora.report.from_rows import blocks_of
from lottalora.report.page import run_list
from lottalora.report.page.html import page
from lottalora.report.page.run_list import options
from lottalora.results import rows
from tests.report.browser import Browser
from tests.report.browser import find_chromium
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><img src=x onerror=alert(1)>"
FIRST = "[...document.querySelectorAll('#run-table tbody tr')].map(row => row.cells[{}].textContent)"
needs_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium: apt-get install chromium")


def report(results, sweep):
    for row in sweep:
        rows.write(row, results)
    main(["report", "--results", str(results)])
    return results / "report.html"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a small sweep with a hostile name in it and one unreadable row."""
    results = tmp_path_factory.mktemp("results")
    sweep = [
        make_row(rank=r, alpha=float(r), seed=s, score=0.9 + r / 500) for r in (1, 2, 16) for s in (1, 2)
    ]
    rows.write(make_row(rank=32), results).write_text("{")
    config = {"note": HOSTILE, "paths": {"data": "/home/somebody"}}
    return report(
        results, [*sweep, make_baseline(seed=1), make_row(recipe=HOSTILE, device=HOSTILE, config=config)]
    )


@pytest.fixture(scope="module")
def browser(written, tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    opened.open(written)
    yield opened
    opened.close()


def test_text_of_a_row_cannot_become_markup(written):
    text = written.read_text()
    assert HOSTILE not in text
    assert "<img" not in text.split('id="payload"')[0]


def test_folders_of_the_machine_stay_out_of_the_page(written):
    assert "/home/somebody" not in written.read_text()


def test_page_counts_unreadable_rows_and_says_what_was_not_run(written):
    text = written.read_text()
    assert "<strong>1</strong> unreadable file<" in text
    assert text.count('<span class="state">not run yet</span>') == 8
    assert "python run.py -m model=cfc data=physionet2012 mode=baseline,scaffold" in text


def test_seconds_of_shared_machines_are_marked_as_not_comparable(written):
    cost = written.read_text().split('<section id="cost">')[1].split("</section>")[0]
    assert "seconds (not comparable)" in cost
    assert "<code>make bench</code>" in cost


def test_verdict_states_recovery_with_rank_and_n_beside_the_paper(written):
    recovered = 100 * (0.9 + 16 / 500) / 0.9838
    said = f"{recovered:.1f} % of full training's test score on MNIST, MLP (r = 16, n = 2; paper 99.4 %)"
    assert said in html.unescape(written.read_text())


def test_payload_is_json_and_holds_every_readable_row(written):
    payload = re.search(r'id="payload">(.*?)</script>', written.read_text(), re.DOTALL)[1]
    assert len(json.loads(payload)["runs"]["rows"]) == 8


def test_runs_that_differ_in_their_seeds_are_listed_from_one_config(monkeypatch, tmp_path):
    flattened = []
    monkeypatch.setattr(run_list, "options", lambda row: flattened.append(row) or options(row))
    config = {"scaffold": {"seed": 1, "family": "normal"}, "model": {"depth": 1}}
    seeds = [
        (seed, config | {"seed": seed, "scaffold": config["scaffold"] | {"seed": seed}}) for seed in range(4)
    ]
    made = [make_row(seed=seed, backbone_seed=seed, config=each) for seed, each in seeds]
    listed = run_list.run_list(blocks_of([*made, make_row(config=config | {"model": {"depth": 2}})]),
                               tmp_path, tmp_path)  # fmt: skip
    assert (len(listed["runs"]), len(listed["configs"]), len(flattened)) == (5, 2, 2)


def test_configs_that_hardly_differ_are_told_by_their_changes():
    configs = [(1, 2, 3, 4, 5), (1, 2, 9, 4, 5), (7, 8), (6, 7, 8, 9, 1), (6, 7, 8, 9, 2), (1, 2, 3, 4, 6)]
    told = run_list.as_changes(configs)
    assert told == [
        {"whole": [1, 2, 3, 4, 5]},
        [0, 2, 9],
        {"whole": [7, 8]},
        {"whole": [6, 7, 8, 9, 1]},
        [3, 4, 2],
        [0, 4, 6],
    ]


@needs_browser
@pytest.mark.browser
def test_page_loads_without_a_complaint_and_asks_the_network_for_nothing(browser, written):
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [written.as_uri()]


def test_sections_follow_the_papers_order_by_their_proper_names(written):
    titles = re.findall(r"<h2>([^<]*?) ?<", written.read_text())
    assert titles[:5] == ["The paper's nine benchmarks", "Does a small net of the same budget do as well?",
                          "MNIST, MLP", "PhysioNet 2012 mortality, CfC", "CIFAR-10, Plain-20"]  # fmt: skip
    assert "mlp on mnist" not in written.read_text()


def as_dicts(table):
    """As page.js reads it."""
    told = list(zip(table["keys"], table["values"], strict=True))
    return [
        {key: values[each] if values else each for (key, values), each in zip(told, row, strict=True)}
        for row in table["rows"]
    ]


def row_file(line, run):
    """As page.js makes it."""
    before, after = line["file"]
    return f"{line['folder']}/{before}s{run['seed']}{after}-{run['digest']}.json"


def test_page_of_the_repositorys_rows_is_small_and_tells_every_story(tmp_path):
    found, problems = rows.read_all(ROOT / "results")
    text = page(blocks_of(found), problems, ROOT / "results", tmp_path, "lottalora report")
    assert len(text.encode()) <= 1.5e6
    payload = json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])
    lines, runs = (as_dicts(payload[name]) for name in ("lines", "runs"))
    assert {unquote(row_file(lines[run["line"]], run)) for run in runs} == {
        path.relative_to(ROOT / "results").as_posix() for path in ROOT.glob("results/rows/*/*/*.json")
    }
    sections = re.findall(r'<section id="(\w+)-(\w+)".*?</section>', text, re.DOTALL)
    assert len(sections) >= 10
    assert text.count('<p class="story">') >= 9
    assert "D4RL score" in text.split('id="decision_transformer-halfcheetah"')[1].split("</table>")[0]


@pytest.mark.slow
def test_page_of_5000_rows_stays_below_3_megabytes(tmp_path):
    found, _ = rows.read_all(ROOT / "results")
    many = [
        row | {"seed": row["seed"] + 1000 * turn, "digest": f"{turn:04x}{row['digest'][4:]}"}
        for turn in range(1 + 5000 // len(found))
        for row in found
    ][:5000]
    text = page(blocks_of(many), [], tmp_path, tmp_path, "lottalora report")
    assert (
        len(json.loads(re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)[1])["runs"]["rows"]) == 5000
    )
    assert len(text.encode()) <= 3e6


@needs_browser
@pytest.mark.browser
def test_mark_says_its_value_under_a_pointer_and_a_series_hides(browser):
    touch = "dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))"
    browser.run(f"document.querySelector('#mlp-mnist .said').{touch}")
    assert "full training: 98.38 %, n = 1" in browser.run("document.getElementById('tip').textContent")
    assert not browser.run("document.getElementById('tip').hidden")
    button = "document.querySelector('#mlp-mnist .legend button')"
    press = f"{button}.click()"
    seen = (
        f"[...document.querySelectorAll(`#mlp-mnist .panel [data-series='${{{button}.dataset.series}}']`)]"
        ".filter(mark => mark.getBoundingClientRect().width).length"
    )
    before = browser.run(seen)
    browser.run(press)
    assert before > 0 and browser.run(seen) == 0
    browser.run(press)
    assert browser.run(seen) == before


@needs_browser
@pytest.mark.browser
def test_heading_sorts_by_number_from_the_keyboard_and_says_so(browser):
    browser.run("document.querySelector('[data-key=rank] button').focus()")
    browser.press("Enter", text="\r")
    assert browser.run(FIRST.format(5)) == ["1", "1", "2", "2", "8", "16", "16", "–"]
    assert browser.run("document.querySelector('[data-key=rank]').ariaSort") == "ascending"
    browser.press("Enter", text="\r")
    assert browser.run(FIRST.format(5)) == ["16", "16", "8", "2", "2", "1", "1", "–"]
    assert browser.run("document.querySelector('[data-key=rank]').ariaSort") == "descending"


@needs_browser
@pytest.mark.browser
def test_filters_leave_the_runs_asked_for(browser):
    browser.run("filters.elements.mode.value = 'baseline'; filters.dispatchEvent(new Event('input'))")
    assert browser.run(FIRST.format(3)) == ["baseline"]
    assert browser.run("document.getElementById('count').textContent") == "1 of 8 runs"
    browser.run("filters.elements.search.value = 'nowhere'; filters.dispatchEvent(new Event('input'))")
    assert browser.run("document.getElementById('count').textContent").startswith("None of 8 runs")
    browser.run("(filters.reset(), new Promise(done => setTimeout(done, 50)))")
    assert len(browser.run(FIRST.format(3))) == 8


@needs_browser
@pytest.mark.browser
def test_search_finds_a_run_by_its_alpha_and_no_other(browser):
    browser.run("filters.elements.search.value = 'alpha=2'; filters.dispatchEvent(new Event('input'))")
    assert browser.run(FIRST.format(6)) == ["2", "2"]
    browser.run("(filters.reset(), new Promise(done => setTimeout(done, 50)))")


@needs_browser
@pytest.mark.browser
def test_sorting_by_score_never_mixes_metrics(browser):
    browser.run("payload.runs[0].metric = 'auroc'; payload.runs[3].metric = 'auroc'")
    metrics = []
    for _ in range(2):
        browser.run("document.querySelector('[data-key=score] button').click()")
        metrics.append(browser.run(FIRST.format(10)))
    browser.run("payload.runs.forEach(run => { run.metric = 'accuracy'; })")
    assert metrics == [["accuracy"] * 6 + ["auroc"] * 2] * 2


@needs_browser
@pytest.mark.browser
def test_run_unfolds_to_its_config_and_its_file(browser, written):
    browser.run("document.querySelector('#run-table td button').click()")
    address = browser.run("document.querySelector('.config a').getAttribute('href')")
    assert (written.parent / address).is_file()
    browser.run("document.querySelector('#run-table td button').click()")
    assert browser.run("document.querySelector('.config')") is None


@needs_browser
@pytest.mark.browser
def test_switch_changes_the_colours(browser):
    before = browser.run("getComputedStyle(document.body).backgroundColor")
    browser.run("document.getElementById('theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") != before


@needs_browser
@pytest.mark.browser
def test_page_is_no_wider_than_a_phone(browser):
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True
    )
    browser.run("new Promise(done => setTimeout(done, 500))")
    assert browser.run("document.documentElement.scrollWidth") <= 390


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 800, 1300])
def test_text_is_readable_and_whole_at_every_width(browser, width):
    look = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.call("Emulation.setDeviceMetricsOverride", **look)
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    browser.run("new Promise(done => setTimeout(done, 300))")
    shown = "[...document.querySelectorAll('.panel text')].filter(text => text.getBoundingClientRect().width)"
    scale = "text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width"
    size = f"text => parseFloat(getComputedStyle(text).fontSize) * {scale}"
    assert browser.run(f"Math.min(...{shown}.map({size}))") >= 11
    cut = "text => { const at = text.getBoundingClientRect(); return at.left < 0 || at.right > innerWidth; }"
    assert browser.run(f"{shown}.filter({cut}).map(text => text.textContent)") == []


@needs_browser
@pytest.mark.browser
def test_table_wider_than_a_phone_says_that_it_can_be_swiped(browser):
    look = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.call("Emulation.setDeviceMetricsOverride", **look)
    browser.run("new Promise(done => setTimeout(done, 300))")
    assert browser.run("getComputedStyle(document.querySelector('#mlp-mnist .swipe')).display") == "block"


@needs_browser
@pytest.mark.browser
def test_page_prints_with_everything_unfolded(browser):
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = false; })")
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details[open]').length") == 0
