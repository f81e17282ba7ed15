"""Where the code of a row was: its commit, and whether the history has it."""

import subprocess
from pathlib import Path

import pytest
import torch

from lottalora.report.from_rows import blocks_of
from lottalora.report.tables import markdown
from lottalora.results import provenance
from lottalora.results import rows
from lottalora.results.ancestry import lost_commits
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "code.py").write_text(text)
    git(folder, "add", "code.py")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with two commits behind HEAD, and one on a branch that was never merged."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    first, second = commit(folder, "one"), commit(folder, "two")
    git(folder, "checkout", "-q", "-b", "aside", first)
    aside = commit(folder, "three")
    git(folder, "checkout", "-q", "main")
    return folder, first, second, aside


def test_a_commit_that_head_does_not_descend_from_is_lost(repository):
    folder, first, second, aside = repository
    never = "3fc16a34" * 5
    assert lost_commits([first, second, aside, never], folder) == {aside, never}


def test_a_tree_with_changes_is_known_by_the_commit_it_started_from(repository):
    folder, first, _, aside = repository
    assert lost_commits([f"{first}-dirty", f"{aside}-dirty"], folder) == {f"{aside}-dirty"}


def test_a_row_made_outside_of_a_repository_is_not_lost(repository):
    assert lost_commits([""], repository[0]) == frozenset()


def test_nothing_is_lost_where_the_history_is_absent_or_shallow(repository, tmp_path, monkeypatch):
    folder, first, *_ = repository
    assert lost_commits([first], tmp_path) == frozenset()
    git(tmp_path, "clone", "-q", "--depth=1", folder.as_uri(), "shallow")
    assert lost_commits([first], tmp_path / "shallow") == frozenset()
    monkeypatch.setenv("PATH", "")
    assert lost_commits([first], folder) == frozenset()


def test_all_rows_are_asked_for_together(repository, monkeypatch):
    calls, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *words, **how: calls.append(words) or run(*words, **how))
    lost_commits([f"{number:040x}" for number in range(1000)], repository[0])
    assert len(calls) == 3  # whether git tracks the folder, whether the history is whole, and the history


def test_commit_is_that_of_the_code_and_says_whether_tracked_files_differ(repository, monkeypatch):
    folder, _, second, _ = repository
    monkeypatch.setattr(provenance, "__file__", str(folder / "code.py"))
    assert provenance.commit() == second
    (folder / "other.py").write_text("not tracked")
    assert provenance.commit() == second
    git(folder, "tag", "v1")
    assert provenance.commit() == second
    (folder / "code.py").write_text("changed")
    assert provenance.commit() == f"{second}-dirty"


def test_commit_is_empty_outside_of_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "code.py"))
    assert provenance.commit() == ""


def test_package_installed_inside_another_repository_has_no_commit_of_that(repository, monkeypatch):
    folder, first, _, _ = repository
    inside = folder / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(provenance, "__file__", str(inside / "code.py"))
    (inside / "code.py").write_text("not tracked")
    assert provenance.commit() == ""
    assert lost_commits(["a" * 40], inside) == frozenset()


def test_tables_mark_a_line_whose_code_is_lost():
    rows = [make_row(commit="a" * 40), make_row(commit="b" * 40, seed=43), make_baseline(commit="b" * 40)]
    (block,) = blocks_of(rows, lost={"a" * 40})
    text = markdown([block], "")
    assert "| 2† |" in text
    assert "| 1 |" in text
    assert "† made by code that is in no history here: 1 of the runs" in text
    assert "†" not in markdown(blocks_of(rows), "")


def test_a_row_names_all_the_code_that_trained_it_where_a_run_went_on_with_other_code(tmp_path):
    one, two = (provenance.provenance(torch.device("cpu"), "32-true", commits) for commits in ("a", "ab"))
    assert one["commit"] == "a" and "commits" not in one
    assert two["commit"] == "b" and two["commits"] == ["a", "b"]
    path = rows.write(make_row(commit="b", commits=["a", "b"]), tmp_path)
    assert rows.read(path)["commits"] == ["a", "b"]
