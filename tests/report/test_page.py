"""The HTML page, in a real Chromium."""

import json
import re

import pytest

from lottalora.cli.main import main
from lottalora.results import rows
from tests.report.browser import Browser
from tests.report.browser import find_chromium
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

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
    assert text.count('<p class="state">not run yet</p>') == 8


def test_seconds_of_shared_machines_are_marked_as_not_comparable(written):
    cost = written.read_text().split('<section id="cost">')[1].split("</section>")[0]
    assert "seconds (not comparable)" in cost
    assert "<code>make bench</code>" in cost


def test_verdict_and_card_state_recovery_beside_the_paper(written):
    recovered = 100 * (0.9 + 16 / 500) / 0.9838
    assert f"{recovered:.1f} % on MNIST, MLP (paper 9" in written.read_text()


def test_payload_is_json_and_holds_every_readable_row(written):
    payload = re.search(r'id="payload">(.*?)</script>', written.read_text(), re.DOTALL)[1]
    assert len(json.loads(payload)["runs"]) == 8


@needs_browser
@pytest.mark.browser
def test_page_loads_without_a_complaint_and_asks_the_network_for_nothing(browser, written):
    browser.run("document.querySelectorAll('.chart').forEach(place => draw(place))")
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith("data:")] == [written.as_uri()]


@needs_browser
@pytest.mark.browser
def test_every_picture_is_drawn(browser):
    browser.run("document.querySelectorAll('.chart').forEach(place => draw(place))")
    places = browser.run("document.querySelectorAll('.chart').length")
    assert places >= 4
    assert browser.run("document.querySelectorAll('.chart .main-svg').length") >= places


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
