"""The table of all sweeps: on a terminal, and in the docs."""

import pytest

from lottalora import CONF
from lottalora.cli import plan as command
from lottalora.sweeps import plan

NAMES = sorted(path.stem for path in CONF.glob("sweeps/*.yaml"))


def entry(name: str = "table14", **changed) -> dict:
    return {"name": name, "title": "MNIST.", "runs": 1005, "done": 3, "hours_of_work": 2.0} | {
        "hours_from": {"cost model": 2},
        **changed,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_header_says_first_what_the_sweep_runs(name):
    title = plan.title_of(CONF / "sweeps" / f"{name}.yaml")
    assert title.endswith(".")
    assert len(title) > 30
    assert "python run.py" not in title


def test_a_title_that_asks_goes_on_to_what_is_run():
    title = plan.title_of(CONF / "sweeps" / "scale.yaml")
    assert title.startswith("How large may the scaffold be? MNIST, medium, r = 8")


def test_each_file_is_planned_as_it_is_alone(tmp_path, monkeypatch):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "digits.yaml").write_text((CONF / "sweeps" / "digits.yaml").read_text())
    monkeypatch.setattr(plan, "CONF", tmp_path)
    results = f"paths.results={tmp_path}"
    (each,) = plan.plan_of_each([results])
    assert each.items() > plan.plan(["sweeps=digits", results]).items()
    assert each["name"] == "digits"


def test_a_line_for_each_sweep_fits_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    command.show_each([entry(title=50 * "long "), entry("table3", hours_of_work=0.0, hours_from={})])
    heading, cut, whole = capsys.readouterr().out.splitlines()
    assert len(cut) == 70
    assert cut.endswith("…")
    assert whole.split() == ["table3", "1,005", "3", "–", "MNIST."]
    assert heading.index("work left") + len("work left") == whole.index("–") + 1


def test_the_table_stands_between_the_markers_of_the_page(tmp_path):
    page = tmp_path / "docs" / "evidence.md"
    page.parent.mkdir()
    page.write_text(f"before\n{command.OPEN}\nold\n{command.CLOSE}\nafter\n")
    unknown = entry("golf", hours_from={"cost model": 1, "unknown": 1})
    command.write_docs(tmp_path, [entry(), unknown])
    text = page.read_text()
    assert "| table14 | 1,005 | 3 | 2.0 h | MNIST. |" in text
    assert "| golf | 1,005 | 3 | unknown | MNIST. |" in text
    assert "old" not in text
    command.write_docs(tmp_path, [entry(), unknown])
    assert page.read_text() == text


def test_a_folder_without_the_page_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"evidence\.md with <!-- sweeps -->"):
        command.write_docs(tmp_path, [])
