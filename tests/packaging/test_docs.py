"""README and docs say what the rows say, and the site builds and needs no network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lottalora.cli.main import main
from lottalora.report.docs import pages
from lottalora.report.docs.shortened import shortened
from lottalora.report.evidence import ASK_WHY
from lottalora.report.evidence import evidence_of
from lottalora.report.from_rows import blocks_of
from lottalora.report.paper_cells import cells
from lottalora.report.reasons import reason_of
from lottalora.report.reasons import reasons
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


@pytest.fixture(scope="module")
def blocks():
    found, problems = rows.read_all(ROOT / "results")
    assert found and not problems
    return blocks_of(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; --strict makes an error of each warning, broken links and anchors included."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_pages_and_figure_say_what_the_rows_say(blocks):
    stale = pages.stale(ROOT, blocks)
    assert not stale, f"stale: {[path.name for path in stale]}. Run: python -m lottalora report --docs"


def test_each_cell_that_differs_has_a_reason_and_each_reason_a_cell_and_a_finding(blocks):
    found = evidence_of(blocks)
    covered = [(cell, reason_of(cell)) for cell in cells() if found.find(cell).kind in ASK_WHY]
    without = [dict(cell.line) for cell, reason in covered if reason is None]
    assert not without, "say why in src/lottalora/report/reasons.toml"
    assert {reason.name for _, reason in covered} == {reason.name for reason in reasons()}
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/findings.md").read_text(), flags=re.MULTILINE)
    assert {reason.finding for reason in reasons()} <= set(headings)


def test_readme_can_be_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_line_starts_with_a_marker_within_a_sentence(page):
    """Markdown would take the whole line for HTML and show it as it is."""
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^ *<!-- rows: .*<!-- /rows -->", text, flags=re.MULTILINE)
    assert text.count("<!-- rows: ") == text.count("<!-- /rows -->") == len(pages.MARKED.findall(text))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_of_a_page_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_files_that_a_page_names_exist(page):
    named = re.findall(
        r"`([a-z0-9_.][\w./-]*/[a-z0-9_.-]+\.(?:csv|py|sh|toml|yaml))`", page.read_text(encoding="utf-8")
    )
    folders = (ROOT, ROOT / "src/lottalora")
    assert [path for path in named if not any((folder / path).exists() for folder in folders)] == []


def test_spread_is_stated_from_three_runs_on_and_below_that_the_runs():
    two = [make_row(seed=seed, score=score) for seed, score in ((42, 0.96), (43, 0.97))]
    text = "<!-- rows: score mlp mnist medium scaffold 8 -->?<!-- /rows -->"
    assert ">96.00, 97.00 % (n = 2)<" in pages.fill(text, blocks_of(two))
    three = [*two, make_row(seed=44, score=0.98)]
    assert ">97.00 ± 1.00 % (n = 3)<" in pages.fill(text, blocks_of(three))


def test_a_changed_row_makes_a_page_stale_and_writing_brings_it_up_to_date(tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("We get <!-- rows: score mlp mnist medium full --><!-- /rows -->.\n")
    rows.write(make_baseline(), tmp_path / "results")
    arguments = ["report", "--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
    assert main([*arguments, "--check"]) == 1
    assert "README.md: stale. Run: python -m lottalora report --docs" in capsys.readouterr().out
    assert main(arguments) == main([*arguments, "--check"]) == 0
    assert "-->98.38 % (n = 1)<!--" in page.read_text()
    rows.write(make_baseline(seed=43, score=0.98), tmp_path / "results")
    assert main([*arguments, "--check"]) == 1


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("scores mlp", "no block is called 'scores'. Known: .*score"),
        ("score mlp mnist", "the marker `score mlp mnist` has missing a required argument: 'size'"),
        ("score mlp mnist tiny full", "no rows of mlp on mnist, tiny, recipe paper"),
        ("score mlp mnist medium scaffold 4", "0 lines of the rows are mlp mnist medium scaffold 4"),
        (
            "score mlp mnist medium scaffold 8 recipe=modified optimizer.lr=0.1",
            "no rows of mlp on mnist, medium, recipe modified, optimizer.lr=0.1",
        ),
    ],
)
def test_a_marker_that_cannot_be_filled_is_refused_in_one_line(marker, said):
    with pytest.raises(ValueError, match=said):
        pages.fill(f"<!-- rows: {marker} --><!-- /rows -->", blocks_of([make_row(), make_baseline()]))


def fill_score(rows_at_hand, *words):
    marker = " ".join(("score mlp mnist medium scaffold 8", *words))
    text = pages.fill(f"<!-- rows: {marker} --><!-- /rows -->", blocks_of(rows_at_hand))
    return float(re.search(r">([\d.]+) %", text)[1])


def test_marker_names_a_line_by_one_of_the_options_that_it_left():
    changed = {"scaffold.keep": ["head", "*.ffn"], "scaffold.freeze": ["*patch*"]}
    counts = make_row()["counts"] | {"trainable": 5}
    config = {"recipe": {"name": "paper"}}
    at_hand = [make_row(score=0.5), make_row(score=0.6, changed=changed, counts=counts, config=config)]
    assert fill_score(at_hand) == 50
    assert fill_score(at_hand, "freeze=['*patch*']") == 60
    with pytest.raises(ValueError, match="0 lines of the rows"):
        fill_score(at_hand, "freeze=[]")


def test_marker_takes_the_least_changed_table_and_names_what_else_it_wants():
    """A table of another learning rate stands under the same name; the first of them is not good enough."""
    named = {"recipe": "2-epochs", "changed": {"trainer.epochs": 2}}
    faster = named | {"changed": {"optimizer.lr": 0.01, "trainer.epochs": 2}}
    at_hand = [make_row(score=0.5, **faster), make_row(score=0.6, **named)]
    assert fill_score(at_hand, "recipe=2-epochs") == 60
    assert fill_score(at_hand, "recipe=2-epochs", "optimizer.lr=0.01") == 50
    at_hand.append(make_row(score=0.7, device="a GPU, bf16-mixed", **named))
    assert fill_score(at_hand, "recipe=2-epochs", "precision=bf16-mixed") == 70
    assert fill_score(at_hand, "recipe=2-epochs", "precision=32-true") == 60
    with pytest.raises(ValueError, match="2 tables of rows of mlp on mnist, medium, recipe 2-epochs"):
        fill_score(at_hand, "recipe=2-epochs")


def test_shortened_runs_of_one_recipe_are_told_apart_by_what_they_changed():
    rates = (0.001, 0.01)
    rows_ = [
        make_baseline(recipe="short", changed={"data.tokens": 9, "optimizer.lr": rate}) for rate in rates
    ]
    learned = make_row(mode="lora", recipe="learned", arms={})
    control = make_row(mode="small", recipe="narrow", arms={})
    table = shortened(blocks_of([*rows_, make_baseline(recipe="other"), learned, control]))
    assert [f"| `short`, learning rate {rate} |" in table for rate in rates] == [True, True]
    assert "| `other` |" in table
    assert "| `learned` |  |  |  | LoRA, r = 8: 96.80 |" in table
    assert "| `narrow` |" not in table  # a control has no column here, and a line of empty cells says nothing


def test_a_modified_recipe_says_what_was_modified():
    table = shortened(blocks_of([make_baseline(recipe="modified", changed={"optimizer.lr": 0.3})]))
    assert "| `modified`, learning rate 0.3 |" in table


def test_a_folder_without_markers_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No README.md or docs/.*Name the repository"):
        pages.write(tmp_path, [])


def test_check_without_docs_is_refused(capsys):
    assert main(["report", "--check"]) == 1
    assert "--check goes with --docs" in capsys.readouterr().err


def test_site_draws_equations_without_a_script(site):
    page = (site / "library.html").read_text(encoding="utf-8")
    assert '<math display="block">' in page and "<mfrac>" in page
    assert "$$" not in page
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert reference.count('<math display="block">') >= 4 and ".. math::" not in reference


def test_site_has_a_page_for_each_file_and_documents_every_public_name(site):
    from lottalora import scaffold

    assert {path.stem for path in site.glob("*.html")} - {"404"} == {path.stem for path in PAGES[1:]}
    reference = (site / "api.html").read_text(encoding="utf-8")
    names = set(scaffold.__all__) - {"ARCHITECTURES", "FAMILIES"}  # dicts; the guide lists what they hold
    missing = [
        name for name in names if not re.search(rf'id="lottalora\.scaffold\.[\w.]*\b{name}"', reference)
    ]
    assert missing == []


class Sources(HTMLParser):
    """What a page loads by itself: scripts, styles, pictures; not the links that a reader follows."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source") or (
            tag == "link" and given.get("rel") != "canonical"
        ):
            self.found.append(given.get("src") or given.get("href") or "")


def test_site_loads_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        sources = Sources()
        sources.feed(page.read_text(encoding="utf-8"))
        assert sources.found
        assert [url for url in sources.found if re.match(r"(https?:)?//", url)] == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), (
            style.name
        )
